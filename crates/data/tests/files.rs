//! Untrusted files: manifests as other programs write them, and files that are not manifests or images.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{encode, options};
use pheye_data::{Content, Error, Loader, LoaderOptions, Manifest, Mixture, Store};
use pheye_files::chain;
use pheye_image::Preprocess;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const LINE: &str = r#"{"text": "one"}"#;

fn open(bytes: impl AsRef<[u8]>) -> Result<Manifest, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.jsonl");
    fs::write(&path, bytes).unwrap();
    Manifest::open(path)
}

#[test]
fn byte_order_marks() {
    for text in [
        format!("\u{feff}{LINE}\r\n{LINE}"),
        format!("{LINE}\n\u{feff}{LINE}\n"),
        format!("\u{feff}\n{LINE}\n{LINE}"),
    ] {
        assert_eq!(open(&text).unwrap().items.len(), 2, "{text:?}");
    }
    let utf16 = |marked: bool, bytes: fn(u16) -> [u8; 2]| {
        let mark = if marked { "\u{feff}" } else { "" };
        format!("{mark}{LINE}\n").encode_utf16().flat_map(bytes).collect::<Vec<u8>>()
    };
    for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
        for marked in [true, false] {
            let error = open(utf16(marked, bytes)).unwrap_err().to_string();
            assert!(error.contains("m.jsonl, line 1: ") && error.contains("UTF-16"), "{error}");
        }
    }
}

#[test]
fn one_array_and_objects_over_several_lines_are_named() {
    let error = open(format!("[{LINE},\n{LINE}]")).unwrap_err().to_string();
    assert!(
        error.contains("line 1: one object a line is wanted") && error.contains("jq -c '.[]'"),
        "{error}"
    );
    let error = open("{\n  \"text\": \"one\"\n}\n").unwrap_err().to_string();
    assert!(error.contains("line 1: EOF") && error.contains("jq -c . "), "{error}");
}

/// Python's `json.loads` keeps lone surrogates; here they become U+FFFD, and complete pairs are kept.
#[test]
fn lone_surrogates() {
    for (written, read) in [
        (r"a \ud83d", "a \u{fffd}"),
        (r"\ud83d\ud83d\udc4d", "\u{fffd}👍"),
        (r"\udc4d!", "\u{fffd}!"),
        (r"\udc4d\ud83d", "\u{fffd}\u{fffd}"),
        (r"\\ud83d \ud83d\n", "\\ud83d \u{fffd}\n"),
        (r"\\\ud83dx", "\\\u{fffd}x"),
        (r"\uD83Dé", "\u{fffd}é"),
    ] {
        let m = open(format!("{{\"text\": \"{written}\", \"other\": \"\\ud800\"}}")).unwrap();
        assert_eq!(m.items[0].text.as_deref(), Some(read), "{written}");
    }
    assert!(open(r#"{"text": "\ud83"}"#).is_err());
    assert!(open(r#"{"text": "\ud83d}"#).is_err());
}

#[test]
fn control_characters_are_escaped_in_errors() {
    let error = open("{\"text\": \"\x1b]0;x\x07\"}").unwrap_err().to_string();
    assert!(!error.contains(char::is_control), "{error:?}");
    let m = open(r#"{"image": "\u001b[31m.png", "caption": "c"}"#).unwrap();
    let error = m.store.read(m.items[0].image.as_ref().unwrap()).unwrap_err().to_string();
    assert!(error.contains(r"\u{1b}[31m.png: cannot be read"), "{error:?}");
}

#[test]
fn a_line_has_a_limit() {
    let began = Instant::now();
    let mut text = format!("{LINE}\n").into_bytes();
    text.resize(17 << 20, b' ');
    let error = open(&text).unwrap_err().to_string();
    assert!(error.contains("line 2: longer than the limit"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20));
}

/// Encoding the text to count its tokens would take seconds and gigabytes.
#[test]
fn a_text_of_megabytes_is_not_encoded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.jsonl");
    fs::write(&path, format!("{LINE}\n{{\"text\": \"{}\"}}\n", "q ".repeat(5 << 20))).unwrap();
    let mixture = Mixture::new(vec![Manifest::open(&path).unwrap()], None, Content::Text, 0).unwrap();
    let options = LoaderOptions { batch: 2, content: Content::Text, ..options() };
    let only_short: Box<pheye_data::Encode> = Box::new(|text| {
        assert!(matches!(text, pheye_data::Example::Text(text) if text.len() < 100));
        encode()(text)
    });
    let loader = Loader::new(mixture, Preprocess::new(16, 1), only_short, options).unwrap();
    let error = chain(&loader.batch(0).unwrap_err());
    assert!(error.contains("m.jsonl, line 2: a text of 10485760 bytes"), "{error}");
}

/// Asserts that the file is rejected without delay.
fn refused(path: &Path, reason: &str) {
    let began = Instant::now();
    let name = path.file_name().unwrap().to_str().unwrap();
    let store = Store::Folder(path.parent().unwrap().into());
    for error in [store.read(name).err(), Manifest::open(path).err()] {
        let error = chain(&error.unwrap_or_else(|| panic!("{name} was read")));
        assert!(error.contains(name) && error.contains(reason), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn files_larger_than_any_image() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = dir.path().join("sparse.png");
    let mut file = File::create(&sparse).unwrap();
    file.write_all(b"\x89PNG\r\n\x1a\n").unwrap();
    file.set_len(5 << 30).unwrap();
    refused(&sparse, "limit of ");
}

#[cfg(unix)]
#[test]
fn neither_devices_nor_pipes() {
    let dir = tempfile::tempdir().unwrap();
    refused(Path::new("/dev/zero"), "a device");
    let link = dir.path().join("link.png");
    std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
    refused(&link, "a device");
    let fifo = dir.path().join("fifo.png");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    refused(&fifo, "a FIFO");
    assert!(chain(&Manifest::open(dir.path().join("no.zip")).unwrap_err()).contains("cannot be read"));
    fs::rename(&fifo, dir.path().join("fifo.zip")).unwrap();
    assert!(chain(&Manifest::open(dir.path().join("fifo.zip")).unwrap_err()).contains("a FIFO"));
    // Reading this file would block until the kernel logs a message.
    if let Ok(bytes) = (Store::Folder("/proc".into())).read("kmsg") {
        assert!(bytes.is_empty());
    }
}

/// Writes a zip archive with these files.
fn archive(dir: &Path, files: &[(&str, &[u8])], how: CompressionMethod) -> PathBuf {
    let path = dir.join("data.zip");
    let mut zip = ZipWriter::new(File::create(&path).unwrap());
    for (name, bytes) in files {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(how)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    path
}

/// Overwrites the uncompressed size of the first file in the directory of a zip archive.
fn claim(path: &Path, size: u32) {
    let mut bytes = fs::read(path).unwrap();
    let entry = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    bytes[entry + 24..entry + 28].copy_from_slice(&size.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn entries_that_claim_or_hold_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let big = vec![b' '; 1 << 20];
    for (size, reason) in
        [(600 << 20, "larger than the limit of 536870912"), (1000, "larger than its declared")]
    {
        let path = archive(dir.path(), &[("a.png", &big)], CompressionMethod::Deflated);
        claim(&path, size);
        let error = chain(&Store::open(&path).unwrap().read("a.png").unwrap_err());
        assert!(error.contains("data.zip: a.png: ") && error.contains(reason), "{error}");
    }
    let path = archive(dir.path(), &[("manifest.jsonl", &[b' '; 17 << 20])], CompressionMethod::Deflated);
    let error = Manifest::open(path).unwrap_err().to_string();
    assert!(error.contains("data.zip: manifest.jsonl, line 1: longer than the limit"), "{error}");
}

#[test]
fn two_files_of_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let files: [(&str, &[u8]); 3] = [("manifest.jsonl", b"{}"), ("a.png", b"1"), ("b.png", b"2")];
    let path = archive(dir.path(), &files, CompressionMethod::Stored);
    let mut twice = fs::read(&path).unwrap();
    for at in 0..twice.len() - 5 {
        if &twice[at..at + 5] == b"b.png" {
            twice[at] = b'a';
        }
    }
    fs::write(&path, twice).unwrap();
    let error = Manifest::open(&path).unwrap_err();
    assert!(matches!(&error, Error::Duplicate { name, .. } if name == "a.png"), "{error:?}");
    assert!(error.to_string().contains("data.zip: holds two files named a.png"), "{error}");
}

/// A zip archive with zip64 records, which some writers add although they are not needed. The sizes in the
/// last record are either correct or all ones, so that only the zip64 record has them. `before` is put before
/// the archive.
fn zip64(before: &[u8], files: &[(&str, &[u8])], true_numbers: bool) -> Vec<u8> {
    let (mut body, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let (at, len) = (body.len() as u32, (bytes.len() as u32).to_le_bytes());
        let crc = crc32fast::hash(bytes).to_le_bytes();
        let common = [&[0; 8][..], &crc, &len, &len, &(name.len() as u16).to_le_bytes(), &[0, 0]].concat();
        body.extend([b"PK\x03\x04\x14\0", &common[..], name.as_bytes(), bytes].concat());
        directory.extend(
            [b"PK\x01\x02\x14\0\x14\0", &common[..], &[0; 10], &at.to_le_bytes(), name.as_bytes()].concat(),
        );
    }
    let (count, size, start) = (files.len() as u64, directory.len() as u64, body.len() as u64);
    let record = [&44u64.to_le_bytes()[..], &[45, 0, 45, 0], &[0; 8]].concat();
    let numbers = [count, count, size, start].map(u64::to_le_bytes).concat();
    let end = match true_numbers {
        true => [
            &(count as u16).to_le_bytes()[..],
            &(count as u16).to_le_bytes(),
            &(size as u32).to_le_bytes(),
            &(start as u32).to_le_bytes(),
        ]
        .concat(),
        false => vec![0xff; 12],
    };
    let locator = [&[0; 4][..], &(start + size).to_le_bytes(), &[1, 0, 0, 0]].concat();
    let ends =
        [b"PK\x06\x06", &record[..], &numbers, b"PK\x06\x07", &locator, b"PK\x05\x06\0\0\0\0", &end, &[0, 0]]
            .concat();
    [before, &body, &directory, &ends].concat()
}

#[test]
fn zip64_records_and_bytes_before_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.zip");
    let manifest = format!("{LINE}\n");
    for len in 28..33 {
        // With a name of 30 bytes, a directory entry is as long as the zip64 records.
        let name = "n".repeat(len);
        let files: [(&str, &[u8]); 2] = [(&name, b"first"), ("manifest.jsonl", manifest.as_bytes())];
        let other: [(&str, &[u8]); 2] = [(&name, b"other"), ("manifest.jsonl", manifest.as_bytes())];
        for true_numbers in [true, false] {
            // The last prefix is an archive with the same lengths, so that its directory is where the offsets
            // in the second archive point without the prefix.
            for before in [Vec::new(), b"#!/bin/sh\n".to_vec(), zip64(b"", &other, true_numbers)] {
                fs::write(&path, zip64(&before, &files, true_numbers)).unwrap();
                let case = format!("{len} letters, {true_numbers}, {} bytes before", before.len());
                let m = Manifest::open(&path).unwrap_or_else(|e| panic!("{case}: {}", chain(&e)));
                assert_eq!(m.store.read(&name).unwrap(), b"first", "{case}");
            }
        }
    }
}

#[test]
fn shifts_beyond_any_image_are_named() {
    for name in ["shift:1000000000", "shift:65536", "shift:99999999999999999999"] {
        let error = pheye_data::Augmentation::parse(&[name]).unwrap_err();
        assert!(error.to_string().contains(&format!("`{name}` is out of range")), "{error}");
    }
    assert!(pheye_data::Augmentation::parse(&["shift:65535"]).is_ok());
}

#[test]
fn an_epoch_can_be_counted() {
    let m = open(LINE).unwrap();
    let error = Mixture::new(vec![m], Some(&[1e18]), Content::Text, 0).unwrap_err();
    assert!(matches!(error, Error::Epoch { .. }), "{error}");
}
