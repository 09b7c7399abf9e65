//! Manifests: what is parsed, and the errors for invalid lines.

mod common;

use common::{easy_vqa, manifest};
use pheye_data::{Content, Error, Manifest, Store};

fn fault(line: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.jsonl");
    std::fs::write(&path, format!("{{\"text\": \"fine\"}}\n\n{line}\n")).unwrap();
    let error = Manifest::open(&path).unwrap_err().to_string();
    let (place, message) = error.split_once(", line 3: ").unwrap_or_else(|| panic!("{error}"));
    assert_eq!(place, path.display().to_string());
    message.to_string()
}

#[test]
fn every_kind_of_line() {
    let dir = tempfile::tempdir().unwrap();
    let lines = [
        r#"{"image": "a.png", "instruction": "what?", "output": "a cat", "id": 7}"#,
        r#"{"image": "b.png", "qa": [["one?", "1"], ["two?", "2"]], "caption": "numbers"}"#,
        r#"{"text": "alone"}"#,
    ];
    let m = manifest(dir.path(), "m.jsonl", &lines.map(String::from));
    assert_eq!(m.items[0].qa, [("what?".to_string(), "a cat".to_string())]);
    assert_eq!((m.items[1].qa.len(), m.items[1].line), (2, 2));
    let has = |content| m.items.iter().map(|i| i.has(content)).collect::<Vec<_>>();
    assert_eq!(has(Content::Questions), [true, true, false]);
    assert_eq!(has(Content::Captions), [false, true, false]);
    assert_eq!(has(Content::Text), [true, true, true]);
    assert!(m.name(0).ends_with("a.png") && m.name(2).ends_with("m.jsonl, line 3"));
}

#[test]
fn faults_name_file_and_line() {
    assert_eq!(fault(r#"{"image": "a.png", "instruction": "what?"}"#), "`instruction` without `output`");
    assert!(fault(r#"{"image": "a.png"}"#).starts_with("has none of `text`"));
    assert!(fault(r#"{"image": 3, "text": ""}"#).starts_with("invalid type: integer `3`, expected a string"));
    assert!(fault("{\"text\": ").starts_with("EOF"));
    assert!(
        matches!(Manifest::open("nowhere.jsonl"), Err(Error::Io { name, .. }) if name == "nowhere.jsonl")
    );
    assert!(matches!(Manifest::open("nowhere.zip"), Err(Error::Io { .. })));
}

#[test]
fn archives_read_as_folders_do() {
    let m = Manifest::open(easy_vqa("test")).unwrap();
    let questions: usize = m.items.iter().map(|i| i.qa.len()).sum();
    assert_eq!((m.items.len(), questions), (1000, 9673));
    let png = m.store.read(m.items[0].image.as_ref().unwrap()).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    let error = m.store.read("images/no.png").unwrap_err().to_string();
    assert!(error.contains("test.zip: images/no.png"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("images")).unwrap();
    for name in ["manifest.jsonl", "images/0.png"] {
        std::fs::write(dir.path().join(name), m.store.read(name).unwrap()).unwrap();
    }
    let folder = Manifest::open(dir.path()).unwrap();
    assert_eq!(folder.items, m.items);
    assert_eq!(folder.store.read("images/0.png").unwrap(), png);
}

#[test]
fn a_damaged_archive_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broken.zip");
    let bytes = std::fs::read(easy_vqa("test")).unwrap();
    for damaged in [&bytes[..bytes.len() / 2], b"", b"no archive"] {
        std::fs::write(&path, damaged).unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("broken.zip"), "{error}");
    }
}
