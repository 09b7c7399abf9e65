//! Saving leaves either the old file or the new one, never a mixture.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use pheye_tensor::{DType, Tensor};
use pheye_weights::{Checkpoint, Error, atomic_write, copy_atomically, save_safetensors};

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_write_that_fails_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    atomic_write(&path, |w| w.write_all(b"old")).unwrap();
    let e = atomic_write(&path, |w| {
        w.write_all(&vec![7; 3 << 20])?;
        Err(io::Error::from(io::ErrorKind::StorageFull))
    });
    assert!(matches!(e, Err(Error::Write { source, .. }) if source.kind() == io::ErrorKind::StorageFull));
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(files(folder.path()), ["w"]);
    atomic_write(&path, |w| w.write_all(b"new")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn errors_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent/w");
    assert!(atomic_write(&absent, |_| Ok(())).unwrap_err().to_string().contains("absent/w: cannot be saved"));
    assert!(matches!(atomic_write("/", |_| Ok(())), Err(Error::Write { .. })));
    let t = Tensor::zeros([1], DType::F32);
    for twice in [["a", "a"], ["a", "__metadata__"]] {
        let saved = save_safetensors(folder.path().join("w"), twice.map(|n| (n, &t)), &BTreeMap::new());
        assert!(matches!(saved, Err(Error::Duplicate { tensor, .. }) if tensor == twice[1]));
    }
    assert!(files(folder.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn a_saved_file_is_as_readable_as_any_other() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
    fs::write(folder.path().join("plain"), b"").unwrap();
    atomic_write(folder.path().join("saved"), |_| Ok(())).unwrap();
    assert_eq!(mode("saved"), mode("plain"));
}

#[test]
fn what_a_killed_writer_left_is_removed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for stray in [".w.123.tmp", ".w.123.4.tmp"] {
        fs::write(path(stray), "half").unwrap();
    }
    // Temporary files of other names, and files that are no temporary files.
    let kept = [".v.123.tmp", ".w.123", ".w.backup.tmp", ".w.tmp", "w.123.tmp"];
    kept.iter().for_each(|name| fs::write(path(name), "mine").unwrap());
    // The temporary file of a writer that is still running is kept.
    atomic_write(path("w"), |out| {
        out.write_all(b"slow")?;
        atomic_write(path("w"), |out| out.write_all(b"fast")).unwrap();
        assert_eq!(fs::read(path("w")).unwrap(), b"fast");
        Ok(())
    })
    .unwrap();
    assert_eq!(fs::read(path("w")).unwrap(), b"slow");
    let mut expected = kept.to_vec();
    expected.push("w");
    expected.sort_unstable();
    assert_eq!(files(folder.path()), expected);
}

#[cfg(unix)]
#[test]
fn a_link_in_the_way_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("victim"), "untouched").unwrap();
    let names = (0..200).map(|n| format!(".w.{}.{n}.tmp", std::process::id()));
    for name in names.chain([format!(".w.{}.tmp", std::process::id())]) {
        std::os::unix::fs::symlink(path("victim"), path(&name)).unwrap();
    }
    atomic_write(path("w"), |out| out.write_all(b"new")).unwrap();
    assert_eq!(fs::read(path("victim")).unwrap(), b"untouched");
    assert_eq!(fs::read(path("w")).unwrap(), b"new");
    assert!(path("w").symlink_metadata().unwrap().is_file());
}

#[test]
fn a_copy_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let bytes: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    fs::write(path("from"), &bytes).unwrap();
    copy_atomically(path("from"), path("to")).unwrap();
    assert_eq!(fs::read(path("to")).unwrap(), bytes);
    let e = copy_atomically(path("absent"), path("to")).unwrap_err();
    assert!(matches!(&e, Error::Read { path, .. } if path.ends_with("absent")), "{e}");
    let e = copy_atomically(folder.path(), path("to")).unwrap_err();
    assert!(matches!(&e, Error::Read { .. }), "{e}");
    let e = copy_atomically(path("from"), path("absent/to")).unwrap_err();
    assert!(matches!(&e, Error::Write { path, .. } if path.ends_with("absent/to")), "{e}");
    assert_eq!(files(folder.path()), ["from", "to"]);
}

const FULL: &str = "PHEYE_TEST_FULL_DISK";

/// A full disk, simulated in a child process by limiting files to 128 KiB.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_old_checkpoint() {
    if let Some(path) = std::env::var_os(FULL) {
        let big = Tensor::zeros([1 << 20], DType::F32);
        let e = save_safetensors(&path, [("big", &big)], &BTreeMap::new()).unwrap_err();
        assert!(matches!(e, Error::Write { .. }), "{e}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let old = Tensor::from_f32([2], &[1.0, 2.0]).unwrap();
    save_safetensors(&path, [("old", &old)], &BTreeMap::new()).unwrap();
    // `ulimit -f` counts blocks of 512 bytes. With SIGXFSZ ignored, exceeding the limit is an error of
    // write().
    let limited = "trap '' XFSZ; ulimit -f 256 && exec \"$0\" --exact a_full_disk_leaves_the_old_checkpoint";
    let mut run = std::process::Command::new("sh");
    run.args(["-c", limited]).arg(std::env::current_exe().unwrap()).env(FULL, &path);
    let run = run.output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    assert_eq!(Checkpoint::open(&path).unwrap().f64s("old").unwrap(), [1.0, 2.0]);
    assert_eq!(files(folder.path()), ["model.safetensors"]);
}
