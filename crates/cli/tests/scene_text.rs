//! `pheye data scene-text`: what it writes can be read, is the same each time, and replaces nothing by accident.

mod common;

use std::fs;

use common::{ends, refuses, s, tree};
use pheye_data::{Content, Manifest};
use serde_json::Value;

/// The words of a command that writes `count` images to `out`.
fn make<'a>(out: &'a str, count: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["data", "scene-text", "--size", "64", "--seed", "3", "--out", out, "--count", count], more].concat()
}

#[test]
fn an_archive() {
    let dir = tempfile::tempdir().unwrap();
    let (zip, again) = (dir.path().join("a.zip"), dir.path().join("b.zip"));
    let sheet = dir.path().join("sheet.png");
    let said = ends(0, make(s(&zip), "9", &["--sheet", s(&sheet)])).out;
    assert!(said.contains("9 images"), "{said}");
    assert_eq!(image::open(&sheet).unwrap().width(), 8 * 68 + 4);

    let manifest = Manifest::open(&zip).unwrap();
    assert_eq!(manifest.items.len(), 9);
    for (i, item) in manifest.items.iter().enumerate() {
        let name = format!("{i:06}.png");
        assert!(item.has(Content::Questions) && item.has(Content::Captions));
        assert_eq!(item.image.as_ref(), Some(&name));
        let image = image::load_from_memory(&manifest.store.read(&name).unwrap()).unwrap();
        assert_eq!((image.width(), image.height()), (64, 64));
    }

    // It is the same each time, is replaced only when asked for, and leaves nothing else behind.
    ends(0, make(s(&again), "9", &[]));
    assert!(fs::read(&zip).unwrap() == fs::read(&again).unwrap());
    refuses(make(s(&zip), "2", &[]), &["a.zip", "exists", "--overwrite"]);
    assert!(fs::read(&zip).unwrap() == fs::read(&again).unwrap());
    ends(0, make(s(&zip), "2", &["--overwrite"]));
    assert_eq!(Manifest::open(&zip).unwrap().items.len(), 2);
    let names: Vec<_> = tree(dir.path()).into_keys().collect();
    assert_eq!(names, ["a.zip", "b.zip", "sheet.png"]);
}

#[test]
fn a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (long, short) = (dir.path().join("long"), dir.path().join("short"));
    // What a killed process left is no part of the data set.
    fs::create_dir(dir.path().join(".long.partial")).unwrap();
    fs::write(dir.path().join(".long.partial/000009.png"), "half").unwrap();
    ends(0, make(s(&long), "5", &[]));
    assert_eq!(tree(dir.path()).len(), 6);
    ends(0, make(s(&short), "3", &[]));
    let (long, mut short) = (tree(&long), tree(&short));
    assert_eq!(long.len(), 6);
    let lines = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let few = lines(&short.remove("manifest.jsonl").unwrap());
    // A longer data set begins with the images of a shorter one.
    assert!(lines(&long["manifest.jsonl"]).starts_with(&few));
    assert!(short.iter().all(|(name, bytes)| long[name] == *bytes));
    for line in few.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let len = |key: &str| line[key].as_array().unwrap().len();
        assert!(len("qa") == len("kinds") && len("qa") == len("boxes") && len("words") > 0);
        assert!(
            line["boxes"].as_array().unwrap().iter().flat_map(Value::as_array).flatten().all(Value::is_u64)
        );
    }
}

#[test]
fn jpeg_files_replace_png_files() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("set");
    ends(0, make(s(&out), "2", &[]));
    ends(0, make(s(&out), "1", &["--jpeg", "90", "--overwrite"]));
    assert_eq!(tree(dir.path()).into_keys().collect::<Vec<_>>(), ["set/000000.jpg", "set/manifest.jsonl"]);
    // Other files would be lost with the folder.
    fs::write(out.join("notes.txt"), "mine").unwrap();
    refuses(make(s(&out), "1", &["--overwrite"]), &["set", "notes.txt", "not overwritten"]);
    assert_eq!(tree(dir.path()).len(), 3);
    fs::create_dir(dir.path().join("empty")).unwrap();
    refuses(make(s(&dir.path().join("empty")), "1", &["--overwrite"]), &["manifest.jsonl"]);
}

#[test]
fn refusals() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("set");
    refuses(make(s(&out), "0", &[]), &["--count", "0", "1 to"]);
    refuses(make(s(&out), "1", &["--min-height", "40"]), &["size", "64", "40"]);
    refuses(make(s(&out), "1", &["--fonts", s(dir.path())]), &["0 fonts"]);
    refuses(make(s(&dir.path().join("no/set")), "1", &["--fonts", "none"]), &["none", "cannot be read"]);
    ends(2, make(s(&out), "1", &["--jpeg", "0"]));
    assert!(tree(dir.path()).is_empty());
}
