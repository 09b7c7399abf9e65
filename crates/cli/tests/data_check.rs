//! `pheye data check`: what it counts and names, and its exit code.

mod common;

use std::fs;
use std::path::Path;

use common::{ends, refuses, s, top};
use serde_json::Value;

/// Writes a config of a run on three rows, whose second image is damaged and whose third is missing.
fn config(dir: &Path, on_broken: &str) -> String {
    let bytes = png(dir);
    fs::write(dir.join("0.png"), &bytes).unwrap();
    fs::write(dir.join("1.png"), &bytes[..bytes.len() / 2]).unwrap();
    let rows: Vec<_> = (0..3)
        .map(|i| format!(r#"{{"image_id": "{i}", "question": "what shape is it?", "answer": "circle"}}"#))
        .collect();
    fs::write(dir.join("lrv.json"), format!("[{}]", rows.join(","))).unwrap();
    let path = dir.join(format!("{on_broken}.toml"));
    let text = format!(
        "task = \"pheye\"\n[model]\npreset = \"nano\"\ntokenizer = \"{}\"\n[data]\non_broken = \"{on_broken}\"\n\
         [[data.source]]\nformat = \"lrv\"\npath = \"lrv.json\"\nimage_name = \"{{id}}.png\"\n[train]\nsteps = 1\n",
        top().join("models/nano/tokenizer.json").display()
    );
    fs::write(&path, text).unwrap();
    s(&path).to_owned()
}

/// The bytes of an image.
fn png(dir: &Path) -> Vec<u8> {
    let path = dir.join("made.png");
    image::RgbImage::from_fn(16, 16, |x, y| image::Rgb([x as u8 * 9, y as u8 * 9, (x ^ y) as u8]))
        .save(&path)
        .unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    bytes
}

#[test]
fn what_would_stop_a_run_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let stop = config(dir.path(), "stop");
    let said = ends(1, ["data", "check", &stop]).out;
    for part in [
        "lrv.json (lrv): 3 rows, 3 samples an epoch",
        "3 texts about 3 images",
        "images that are missing: 1",
        "2.png",
    ] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    let said = ends(0, ["data", "check", &config(dir.path(), "skip"), "--images", "--json"]).out;
    let found: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&found["broken"]["count"], &found["missing"]["count"]), (&1.into(), &1.into()));
    assert!(found["broken"]["first"][0].as_str().unwrap().contains("lrv.json, row 2: "), "{found}");
    fs::write(dir.path().join("lrv.json"), "[{}]").unwrap();
    refuses(["data", "check", &stop], &["lrv.json, row 1: missing field `image_id`"]);
}
