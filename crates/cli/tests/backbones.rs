//! Runs that start from backbone folders in the layout of the hub.

mod common;

use std::fs;

use common::{Bench, NETWORK, config, ends, s};
use serde_json::{Value, json};

#[test]
fn folders_train_as_files_do() {
    let bench = Bench::new();
    let lines = |out: &str| format!("steps = 2\nbatch = 2\nseed = 7\nout = \"{out}\"");
    let text = |out: &str| config("pheye", &[("train", &lines(out))]);
    let files = bench.write("files.toml", text("files"));
    ends(0, ["train", s(&files)]);

    let sizes: Value =
        serde_json::from_slice(&fs::read(bench.path("files/model/pheye.json")).unwrap()).unwrap();
    let mut folders = text("folders").replace(NETWORK, "");
    for (part, kind, folder) in [("vision", "clip_vision_model", "clip"), ("text", "phi", "phi-1")] {
        let mut published = sizes[part].clone();
        published["model_type"] = json!(kind);
        bench.write(&format!("{folder}/config.json"), published.to_string());
        let file = format!("{part}/model/{part}.safetensors");
        fs::copy(bench.path(&file), bench.path(folder).join("model.safetensors")).unwrap();
        folders = folders.replace(&file, folder);
    }
    ends(0, ["train", s(&bench.write("folders.toml", folders))]);
    let model = |out: &str| fs::read(bench.path(out).join("model/model.safetensors")).unwrap();
    assert!(model("folders") == model("files"));
}
