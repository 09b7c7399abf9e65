//! Indices on disk: used if nothing changed, and built anew otherwise.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pheye_data::{Error, Format, Source, SourceConfig};

/// Writes a conversation file of more than a megabyte, changed an hour ago.
fn write(path: &Path, answer: &str) {
    let row = |i: usize| {
        format!(
            "{{\"id\": {i}, \"image\": \"{i}.jpg\", \"conversations\": [{{\"from\": \"human\", \"value\": \
             \"What is number {i}?\"}}, {{\"from\": \"gpt\", \"value\": \"{answer} {i:090}\"}}]}}"
        )
    };
    let rows: Vec<String> = (0..6000).map(row).collect();
    fs::write(path, format!("[{}]", rows.join(",\n"))).unwrap();
    let hour = SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(path).unwrap().set_modified(hour).unwrap();
}

fn stored(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Opens the source; also returns whether its file was read.
fn open(config: &SourceConfig, indices: &Path) -> (Source, bool) {
    let source = Source::open(config, Some(indices)).unwrap();
    let fresh = source.inputs()[0].print.is_some();
    assert_eq!(source.len(), 6000);
    (source, fresh)
}

#[test]
fn a_stored_index_is_used_until_something_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (path, indices) = (dir.path().join("c.json"), dir.path().join("deep/index"));
    write(&path, "no");
    let config = SourceConfig::new(Format::Conversation, &path);
    let (first, fresh) = open(&config, &indices);
    assert!(fresh && stored(&indices).len() == 1);
    let (second, fresh) = open(&config, &indices);
    assert!(!fresh);
    for i in [0, 17, 5999] {
        assert_eq!(second.item(i).unwrap(), first.item(i).unwrap());
        assert_eq!(second.item(i).unwrap().line, i + 1);
    }
    // Another file of the same length, with another time.
    write(&path, "ja");
    let later = SystemTime::now() - Duration::from_secs(1800);
    File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    let (third, fresh) = open(&config, &indices);
    assert!(fresh && stored(&indices).len() == 1);
    assert!(third.item(5).unwrap().qa[0].1.starts_with("ja"));
    // Other settings have an index of their own.
    let excluded = SourceConfig { exclude: vec!["x".into()], ..config.clone() };
    assert!(open(&excluded, &indices).1);
    assert_eq!(stored(&indices).len(), 2);
    assert!(!open(&SourceConfig { weight: Some(2.0), ..config }, &indices).1);
}

#[test]
fn a_damaged_index_is_built_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (path, indices) = (dir.path().join("c.json"), dir.path().join("index"));
    write(&path, "no");
    let config = SourceConfig::new(Format::Conversation, &path);
    open(&config, &indices);
    let file = stored(&indices).remove(0);
    let good = fs::read(&file).unwrap();
    for at in [0, 20, 200, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, &bad).unwrap();
        assert!(open(&config, &indices).1, "byte {at}");
        assert_eq!(fs::read(&file).unwrap(), good);
    }
    for len in [0, 3, 40, good.len() - 1] {
        fs::write(&file, &good[..len]).unwrap();
        assert!(open(&config, &indices).1, "{len} bytes");
    }
}

#[test]
fn what_cannot_be_stored_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.json");
    write(&path, "no");
    let config = SourceConfig::new(Format::Conversation, &path);
    let occupied = dir.path().join("file");
    fs::write(&occupied, "x").unwrap();
    assert!(open(&config, &occupied).1);
    assert!(open(&config, &occupied.join("below")).1);
    // A file that was changed just now may change again without another time.
    let indices = dir.path().join("index");
    File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now()).unwrap();
    assert!(open(&config, &indices).1 && open(&config, &indices).1);
    assert!(stored(&indices).is_empty());
}

#[test]
fn a_file_that_changes_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.json");
    write(&path, "no");
    let (source, _) = open(&SourceConfig::new(Format::Conversation, &path), dir.path());
    write(&path, "ja");
    let error = source.item(3).unwrap_err();
    assert!(matches!(&error, Error::Changed { name } if name.ends_with("c.json")), "{error}");
    fs::write(&path, "[]").unwrap();
    assert!(matches!(source.item(3), Err(Error::Changed { .. })));
}
