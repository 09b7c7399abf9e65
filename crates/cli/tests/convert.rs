//! `pheye convert`: shards, adapters, merged towers, and inputs that it rejects.

mod common;

use std::fs;
use std::path::Path;

use common::tensors::Safetensors;
use common::{copy_tree, ends, golden, refuses, s, same, top, tree};
use serde_json::Value;

/// Copies the golden data of `case` into the model folder `dir`.
fn with_golden(case: &str, dir: &Path) {
    for entry in fs::read_dir(golden(case)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if name == "golden.safetensors" || path.extension().is_some_and(|e| e == "png") {
            fs::copy(&path, dir.join(name)).unwrap();
        }
    }
}

#[test]
fn a_sharded_model_is_the_same_model() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("model");
    let said = ends(0, ["convert", s(&golden("x2-level2")), s(&dir), "--shard-size", "300KB"]);
    assert!(said.out.contains("shards"), "{}", said.out);
    let index: Value =
        serde_json::from_slice(&fs::read(dir.join("model.safetensors.index.json")).unwrap()).unwrap();
    let files: Vec<_> = tree(&dir).into_keys().filter(|n| n.ends_with(".safetensors")).collect();
    assert!(files.len() > 3 && !dir.join("model.safetensors").exists(), "{files:?}");
    let mut total = 0;
    for file in &files {
        let shard = Safetensors::read(&dir.join(file));
        assert!(shard.data.len() <= 300_000 || shard.header.len() <= 2, "{file}");
        assert!(shard.header.keys().all(|n| index["weight_map"][n] == **file));
        total += shard.data.len();
    }
    assert_eq!(index["metadata"]["total_size"], total);
    with_golden("x2-level2", &dir);
    ends(0, ["verify", s(&dir)]);

    // A missing shard is named, and no output is created.
    fs::remove_file(dir.join(&files[1])).unwrap();
    refuses(["verify", s(&dir)], &[&files[1]]);
    let to = temp.path().join("to");
    refuses(["convert", s(&dir), s(&to)], &[&files[1]]);
    assert!(!to.exists());
}

#[test]
fn adapters_leave_and_come_back() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let nano = top().join("models/nano");
    let before = tree(&nano);
    ends(0, ["convert", s(&nano), s(&at("own"))]);
    let said = ends(0, ["convert", s(&nano), s(&at("lora")), "--extract-lora"]);
    assert!(said.out.contains("global") && said.out.contains("local"), "{}", said.out);
    let names: Vec<_> = tree(&at("lora")).into_keys().collect();
    let file = |set: &str, name: &str| format!("{set}/adapter_{name}");
    let expected: Vec<_> = ["first", "second"]
        .iter()
        .flat_map(|set| [file(set, "config.json"), file(set, "model.safetensors")])
        .collect();
    assert_eq!(names, expected);
    let (first, second) = (at("lora/first"), at("lora/second"));
    let lora = ["--lora-global", s(&first), "--lora-local", s(&second)];
    ends(0, [&["convert", s(&nano), s(&at("back"))], &lora[..]].concat());
    same(&tree(&at("back")), &tree(&at("own")));
    // Swapping the adapters gives another model.
    let exchanged = ["--lora-global", s(&second), "--lora-local", s(&first)];
    ends(0, [&["convert", s(&nano), s(&at("exchanged"))], &exchanged[..]].concat());
    assert!(tree(&at("exchanged"))["model.safetensors"] != tree(&at("own"))["model.safetensors"]);

    for set in ["global", "local"] {
        let to = at(set);
        ends(0, ["convert", s(&nano), s(&to), "--merge-lora", set, "--shard-size", "100KB"]);
        let files: Vec<_> = tree(&to).into_keys().collect();
        assert!(files.contains(&"config.json".to_owned()), "{files:?}");
        assert!(files.contains(&"model.safetensors.index.json".to_owned()), "{files:?}");
        let text = fs::read_to_string(to.join("model.safetensors.index.json")).unwrap();
        assert!(text.contains("vision_model.encoder.layers.0.mlp.fc1.weight") && !text.contains("lora"));
        refuses(["convert", s(&nano), s(&to), "--merge-lora", set], &["exists"]);
    }
    refuses(["convert", s(&nano), s(&at("lora")), "--extract-lora"], &["adapter_config.json", "exists"]);
    same(&tree(&nano), &before);
}

#[test]
fn what_does_not_fit_is_refused_whole() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let nano = top().join("models/nano");
    ends(0, ["convert", s(&nano), s(&at("lora")), "--extract-lora"]);
    let weights = at("lora/second/adapter_model.safetensors");
    let mut adapter = Safetensors::read(&weights);
    let key = adapter.find(&["layers.1", "v_proj", "lora_B"]);
    let wrong = key.replace("v_proj", "w_proj");
    adapter.rename(&key, &wrong);
    adapter.write(&weights);
    let second = at("lora/second");
    for mode in [&[][..], &["--merge-lora", "local"], &["--extract-lora"]] {
        let to = at("to");
        let args = [&["convert", s(&nano), s(&to), "--lora-local", s(&second)], mode].concat();
        refuses(args, &["adapter_model.safetensors", &key, &wrong, "2 mismatches"]);
        assert!(!to.exists(), "{mode:?}");
    }
    // A model whose own tensors have wrong names is rejected as well.
    copy_tree(&nano, &at("bad"));
    let mut bad = Safetensors::read(&at("bad/model.safetensors"));
    let key = bad.find(&["layers.1.mlp.fc2.base_layer.weight"]);
    bad.rename(&key, "stray");
    bad.write(&at("bad/model.safetensors"));
    let to = at("to");
    refuses(["convert", s(&at("bad")), s(&to), "--merge-lora", "global"], &[&key, "`stray`"]);
    refuses(["convert", s(&golden("level1")), s(&to), "--merge-lora", "local"], &["no local LoRA set"]);
    refuses(["convert", s(&nano), s(&to), "--merge-lora"], &["`global` or `local`", "two over one tower"]);
    assert!(!to.exists());
    for (option, value) in [("--shard-size", "0"), ("--shard-size", "5XB"), ("--merge-lora", "both")] {
        let said = ends(2, ["convert", s(&nano), s(&to), option, value]);
        assert!(said.err.contains(option), "{said:#?}");
    }
    ends(2, ["convert", s(&nano), s(&to), "--extract-lora", "--merge-lora", "local"]);
    ends(2, ["convert", s(&nano), s(&to), "--dtype", "f32", "--bf16"]);
}

#[test]
fn half_the_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let (full, half) = (temp.path().join("full"), temp.path().join("half"));
    let nano = top().join("models/nano");
    ends(0, ["convert", s(&nano), s(&full)]);
    ends(0, ["convert", s(&nano), s(&half), "--dtype", "bf16"]);
    let bytes = |dir: &Path| Safetensors::read(&dir.join("model.safetensors")).data.len();
    assert_eq!(bytes(&full), 2 * bytes(&half));
}
