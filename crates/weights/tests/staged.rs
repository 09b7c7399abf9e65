//! Several files appear in a folder together, even if the process that writes them is killed.

use std::fs;
use std::path::Path;

use pheye_weights::{Error, Opened, Staged};

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn ready(folder: &Path) -> Staged {
    match Staged::open(folder).unwrap() {
        Opened::Ready(staged) => staged,
        Opened::Completed(what) => panic!("completed {what}"),
    }
}

fn fill(staged: &Staged) {
    fs::create_dir(staged.path().join("first")).unwrap();
    for name in ["a", "first/b", "config"] {
        fs::write(staged.path().join(name), name).unwrap();
    }
}

#[test]
fn all_together() {
    let top = tempfile::tempdir().unwrap();
    let to = top.path().join("to");
    let staged = ready(&to);
    fill(&staged);
    assert_eq!(names(&to), [".partial"]);
    staged.publish("config", "a model").unwrap();
    assert_eq!(names(&to), ["a", "config", "first"]);
    assert_eq!(fs::read(to.join("first/b")).unwrap(), b"first/b");
}

#[test]
fn an_error_leaves_nothing() {
    let top = tempfile::tempdir().unwrap();
    let to = top.path().join("to");
    fill(&ready(&to));
    assert!(!to.exists());
    // An existing folder is kept, with its contents.
    fs::create_dir(&to).unwrap();
    fs::write(to.join("config"), "mine").unwrap();
    let staged = ready(&to);
    fill(&staged);
    assert!(matches!(staged.publish("config", "a model"), Err(Error::Exists { .. })));
    assert_eq!(names(&to), ["config"]);
    assert_eq!(fs::read(to.join("config")).unwrap(), b"mine");
}

#[test]
fn a_killed_writer_is_cleared_up_after() {
    let top = tempfile::tempdir().unwrap();
    let staged = ready(top.path());
    fill(&staged);
    // A second process is refused. After a kill, only the lock is released; the files remain.
    let other = Staged::open(top.path()).unwrap_err();
    assert!(matches!(other, Error::Write { .. }), "{other}");
    std::mem::forget(staged);
    let copy = top.path().join("copy");
    fs::create_dir_all(copy.join(".partial")).unwrap();
    fs::write(copy.join(".partial/half"), "ha").unwrap();
    let staged = ready(&copy);
    fill(&staged);
    staged.publish("config", "a model").unwrap();
    assert_eq!(names(&copy), ["a", "config", "first"]);
}

#[test]
fn a_move_cut_short_is_completed() {
    let top = tempfile::tempdir().unwrap();
    let partial = top.path().join(".partial");
    fs::create_dir_all(partial.join("first")).unwrap();
    fs::write(top.path().join("a"), "a").unwrap();
    for (name, text) in [("first/b", "b"), ("config", "c"), (".moving", "a model"), (".lock", "")] {
        fs::write(partial.join(name), text).unwrap();
    }
    assert!(matches!(Staged::open(top.path()).unwrap(), Opened::Completed(what) if what == "a model"));
    assert_eq!(names(top.path()), ["a", "config", "first"]);
}
