//! Files that are not regular, too long, or not UTF-8 are refused before they are read.

use std::io::{ErrorKind, Write};
use std::path::Path;

use pheye_files::{Kind, chain, open, printable, quoted, read, read_text, take, text};

#[test]
fn regular_files_up_to_the_limit() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"12345").unwrap();
    assert_eq!(read(file.path(), Kind::Regular, 5).unwrap(), b"12345");
    let error = read(file.path(), Kind::Regular, 4).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    assert_eq!(error.to_string(), "it is larger than the limit of 4 bytes");
    // A sparse file with more bytes than there is memory.
    file.as_file().set_len(1 << 40).unwrap();
    assert_eq!(read(file.path(), Kind::Any, 1 << 20).unwrap_err().kind(), ErrorKind::FileTooLarge);
}

#[cfg(unix)]
#[test]
fn neither_devices_nor_directories() {
    let message = |path: &str, kind| read(Path::new(path), kind, 100).unwrap_err().to_string();
    assert_eq!(message("/dev/zero", Kind::Regular), "it is a device, not a regular file");
    assert_eq!(message("/", Kind::Regular), "it is a directory, not a regular file");
    assert_eq!(message("/", Kind::Any), "it is a directory, not a regular file");
    assert_eq!(message("/dev/zero", Kind::Any), "it is larger than the limit of 100 bytes");
    assert_eq!(read(Path::new("/dev/null"), Kind::Any, 100).unwrap(), b"");
}

#[cfg(unix)]
#[test]
fn a_fifo_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_eq!(open(&fifo, Kind::Regular).unwrap_err().to_string(), "it is a FIFO, not a regular file");
    std::os::unix::fs::symlink(&fifo, dir.path().join("link")).unwrap();
    assert!(open(&dir.path().join("link"), Kind::Regular).is_err());
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("gone", &link).unwrap();
    let error = open(&link, Kind::Any).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "it is a link to gone, which does not exist");
    assert!(!open(&dir.path().join("absent"), Kind::Any).unwrap_err().to_string().contains("link"));
}

#[test]
fn texts() {
    assert_eq!(text(b"\xEF\xBB\xBF{}".to_vec()).unwrap(), "{}");
    assert_eq!(text(b"\xFF\xFE{\0}\0".to_vec()).unwrap_err().to_string(), "it is UTF-16; save it as UTF-8");
    let latin1 = text(b"caf\xE9".to_vec()).unwrap_err();
    assert_eq!(latin1.to_string(), "it is not UTF-8 (byte 3 begins no character)");
    assert!(read_text(Path::new("no/such"), Kind::Regular, 9).is_err());
}

#[test]
fn readers_that_give_more_than_they_claim() {
    assert_eq!(take(&b"abc"[..], 2, 3).unwrap(), b"abc");
    assert_eq!(take(std::io::repeat(0), 2, 1000).unwrap_err().kind(), ErrorKind::FileTooLarge);
}

#[test]
fn control_characters() {
    assert_eq!(printable("a\x1b]0;x\x07\n\tö\u{9b}\u{202e}日"), "a\\u{1b}]0;x\\u{7}\n\tö\\u{9b}\\u{202e}日");
    assert_eq!(quoted("a\nb\tc\r"), "a\\nb\\tc\\u{d}");
}

#[test]
fn causes_are_said_once() {
    #[derive(Debug)]
    struct Says(&'static str, Option<Box<Says>>);
    impl std::fmt::Display for Says {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }
    impl std::error::Error for Says {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1.as_deref().map(|e| e as _)
        }
    }
    let gone = || Some(Box::new(Says("no such file", None)));
    assert_eq!(chain(&Says("a.png: cannot be read", gone())), "a.png: cannot be read: no such file");
    assert_eq!(chain(&Says("bad PNG: no such file", gone())), "bad PNG: no such file");
    let twice = Says("x", Some(Box::new(Says("no such file", gone()))));
    assert_eq!(chain(&twice), "x: no such file");
}
