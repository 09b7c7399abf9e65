//! Golden data passes, and a weight that is one per cent off fails.

mod common;

use std::fs;
use std::path::Path;

use common::tensors::Safetensors;
use common::{copy_tree, ends, golden, pheye, refuses, run, s};
use serde_json::Value;

const CASES: [&str; 3] = ["level1", "x2-level2", "x4-level3"];

#[test]
fn golden_folders_pass() {
    for case in CASES {
        let dir = golden(case);
        let text = ends(0, ["verify", s(&dir)]).out;
        for stage in ["global_pixels", "media", "logits", "loss_sum", "greedy", "train_losses", "passed"] {
            assert!(text.contains(stage), "{case}: no {stage} in\n{text}");
        }
        let json: Value = serde_json::from_str(&ends(0, ["verify", s(&dir), "--json"]).out).unwrap();
        assert_eq!(json["passed"], true);
        let stages = json["stages"].as_array().unwrap();
        for stage in stages {
            let number = |key: &str| stage[key].as_f64().unwrap();
            assert!(number("error") <= number("allowed"), "{case}: {stage}");
        }
        let grads = stages.iter().filter(|stage| stage["name"].as_str().unwrap().starts_with("grad."));
        assert!(grads.count() > 20, "{case}");
    }
}

/// `case` converted to this project's layout, with its golden data, in `dir`.
fn converted(case: &str, dir: &Path) {
    ends(0, ["convert", s(&golden(case)), s(dir)]);
    for entry in fs::read_dir(golden(case)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if name == "golden.safetensors" || path.extension().is_some_and(|e| e == "png") {
            fs::copy(&path, dir.join(name)).unwrap();
        }
    }
}

/// One tensor of each kind, as substrings of its name.
const TENSORS: &[&[&str]] = &[
    &["patch_embedding", "base_layer.weight"],
    &["vision_model", "layers.0", "q_proj.base_layer.weight"],
    &["vision_model", "fc2.base_layer.bias"],
    &["vision_model", "pre_layrnorm.weight"],
    &["lora_A"],
    &["lora_B", "fc1"],
    &["connector.embedding.weight"],
    &["norm_lvl_1.weight"],
    &["cross_attn_layers", "to_kv.weight"],
    &["cross_attn_layers", "to_out.weight"],
    &["cross_attn_layers", "ff.fc1.weight"],
    &["old_decoder_blocks", "k_proj.weight"],
    &["old_decoder_blocks", "mlp.fc1.weight"],
    &["lm_head.weight"],
];

/// Scales each kind of tensor by one per cent, in one of the cases the whole tensor and in another a single
/// element.
#[track_caller]
fn one_per_cent_fails(at: usize) {
    let case = CASES[at];
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("model");
    converted(case, &dir);
    ends(0, ["verify", s(&dir)]);
    let file = dir.join("model.safetensors");
    for (i, parts) in TENSORS.iter().enumerate() {
        let mut changed = Safetensors::read(&file);
        let name = changed.find(parts);
        let only = match (i + at) % 3 {
            0 => None,
            1 => Some(changed.largest(&name)),
            _ => continue,
        };
        let whole = fs::read(&file).unwrap();
        changed.map(&name, |j, v| if only.is_none_or(|only| only == j) { v * 1.01 } else { v });
        changed.write(&file);
        let ended = run(pheye(["verify", s(&dir)]));
        assert_eq!(ended.code, Some(3), "{case} {name} {only:?}: {ended:#?}");
        assert!(ended.out.contains("OUT OF BOUNDS") && ended.out.contains("FAILED"), "{ended:#?}");
        fs::write(&file, whole).unwrap();
    }
}

#[test]
fn one_per_cent_fails_level1() {
    one_per_cent_fails(0);
}

#[test]
fn one_per_cent_fails_x2() {
    one_per_cent_fails(1);
}

#[test]
fn one_per_cent_fails_x4() {
    one_per_cent_fails(2);
}

#[test]
fn what_cannot_be_compared() {
    let temp = tempfile::tempdir().unwrap();
    copy_tree(&golden("level1"), temp.path());
    let file = temp.path().join("golden.safetensors");
    let mut golden = Safetensors::read(&file);
    golden.rename("media", "medium");
    golden.write(&file);
    refuses(["verify", s(temp.path())], &["golden.safetensors", "`media`"]);
    fs::remove_file(&file).unwrap();
    refuses(["verify", s(temp.path())], &["golden.safetensors"]);
}
