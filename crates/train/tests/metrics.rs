//! The metrics of an interrupted and resumed run equal those of an uninterrupted one.

use std::fs;
use std::path::Path;

use pheye_train::Metrics;

fn run(dir: &Path, resumed: Option<u64>, steps: std::ops::RangeInclusive<u64>) {
    let mut metrics = Metrics::open(dir, resumed, true).unwrap();
    for step in steps {
        metrics.log(step, &[("loss", 1.0 / step as f64), ("lr", 1e-3)]);
        if step % 2 == 0 {
            metrics.log(step, &[("accuracy", 0.5)]);
        }
    }
}

fn lines(dir: &Path) -> String {
    fs::read_to_string(dir.join("metrics.jsonl")).unwrap()
}

#[test]
fn a_resumed_file_equals_an_unbroken_one() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(whole.path(), None, 1..=9);
    run(broken.path(), None, 1..=6);
    // As left by a kill in the middle of a line.
    let path = broken.path().join("metrics.jsonl");
    let text = lines(broken.path());
    fs::write(&path, &text[..text.len() - 5]).unwrap();
    run(broken.path(), Some(4), 5..=9);
    assert_eq!(lines(whole.path()), lines(broken.path()));
    assert!(lines(whole.path()).starts_with("{\"step\":1,\"loss\":1.0,\"lr\":0.001}\n"));
    run(broken.path(), None, 1..=1);
    assert_eq!(lines(broken.path()).lines().count(), 1);
}

#[test]
fn a_partial_line_at_the_resumed_step_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("metrics.jsonl"), "{\"step\":1}\n{\"step\":2}\n{\"ste").unwrap();
    Metrics::open(dir.path(), Some(7), false).unwrap().log(8, &[("loss", f64::NAN)]);
    let text = lines(dir.path());
    assert!(text.starts_with("{\"step\":1}\n{\"step\":2}\n") && text.lines().count() == 3, "{text}");
    assert!(text.contains("null"));
}

#[test]
fn tensorboard_files_read_back() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), None, 1..=300);
    run(dir.path(), Some(200), 201..=202);
    let mut files: Vec<_> =
        fs::read_dir(dir.path().join("tensorboard")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 2);
    let first = records(&fs::read(&files[0]).unwrap());
    assert_eq!(first.len(), 1 + 300 + 150);
    assert_eq!(field(&first[0], 3), b"brain.Event:2");
    // Steps from 128 take two bytes as a varint.
    let last = &first[first.len() - 2];
    assert_eq!(varint(last, 2), 300);
    let summary = field(last, 5);
    let value = field(summary, 1);
    assert_eq!(field(value, 1), b"loss");
    assert_eq!(field(value, 2), (1.0f32 / 300.0).to_le_bytes());
    let second = records(&fs::read(&files[1]).unwrap());
    assert_eq!((varint(&second[1], 2), field(&second[1], 7)), (201, &[8, 1][..]));
}

#[test]
fn a_clock_set_back_does_not_change_the_order_of_event_files() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tensorboard");
    fs::create_dir(&folder).unwrap();
    let future = "events.out.tfevents.4000000000.pheye.0000";
    for name in [future, "notes.txt"] {
        fs::write(folder.join(name), "").unwrap();
    }
    run(dir.path(), Some(0), 1..=1);
    run(dir.path(), Some(1), 2..=2);
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let first = "events.out.tfevents.4000000001.pheye.0001";
    assert_eq!(names, [future, first, "events.out.tfevents.4000000002.pheye.0002", "notes.txt"]);
    let step = |name: &str| varint(&records(&fs::read(folder.join(name)).unwrap())[2], 2);
    assert_eq!((step(&names[1]), step(&names[2])), (1, 2));
}

/// The data of TFRecord frames, after verifying their checksums.
fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
    let masked = |data: &[u8]| {
        let crc = crc32c(data);
        crc.rotate_right(15).wrapping_add(0xa282ead8).to_le_bytes()
    };
    let mut out = Vec::new();
    while !file.is_empty() {
        let len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        assert_eq!(file[8..12], masked(&file[..8]));
        assert_eq!(file[12 + len..16 + len], masked(&file[12..12 + len]));
        out.push(file[12..12 + len].to_vec());
        file = &file[16 + len..];
    }
    out
}

fn take_varint(data: &mut &[u8]) -> u64 {
    let n = data.iter().position(|b| *b < 128).unwrap() + 1;
    let value = data[..n].iter().rev().fold(0, |v, b| v << 7 | u64::from(b & 127));
    *data = &data[n..];
    value
}

/// The value of the first occurrence of a field: the bytes of a length-delimited or fixed-size field, or the
/// encoded varint.
fn field(mut message: &[u8], wanted: u64) -> &[u8] {
    while !message.is_empty() {
        let key = take_varint(&mut message);
        let before = message;
        let len = match key & 7 {
            0 => {
                let mut rest = message;
                take_varint(&mut rest);
                before.len() - rest.len()
            }
            1 => 8,
            2 => take_varint(&mut message) as usize,
            _ => 4,
        };
        let (value, rest) = message.split_at(len);
        message = rest;
        if key >> 3 == wanted {
            return value;
        }
    }
    panic!("no field {wanted}");
}

fn varint(message: &[u8], wanted: u64) -> u64 {
    take_varint(&mut field(message, wanted))
}

/// CRC-32C by polynomial division, bit by bit.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        for i in 0..8 {
            let out = (crc ^ u32::from(byte >> i)) & 1;
            crc >>= 1;
            if out == 1 {
                crc ^= 0x82f6_3b78;
            }
        }
    }
    !crc
}
