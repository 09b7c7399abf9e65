//! Backbones in the published layouts.

mod common;
#[path = "../../weights/tests/common/torch.rs"]
mod torch;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{config, lively, values};
use pheye_model::{Config, Options, Pheye, names};
use pheye_tensor::Tensor;
use pheye_weights::save_safetensors;
use serde_json::json;

/// The frozen tensors of one part under their published names, with the other tensors of such files.
fn published(model: &mut Pheye, vision: bool) -> Vec<(String, Tensor)> {
    let (prefix, names) =
        if vision { ("vision_encoder.", names::clip()) } else { ("lang_encoder.", names::phi()) };
    let params = model.params_mut();
    let ours = params.iter().filter(|p| p.name.starts_with(prefix) && !Pheye::is_pheye_param(&p.name));
    let mut all: Vec<_> = ours.map(|p| (names.apply(&p.name), p.value.clone())).collect();
    let extra = Tensor::from_f32([2], &[1.0, 2.0]).unwrap();
    let beside: &[&str] = match vision {
        true => {
            &["text_model.final_layer_norm.weight", "logit_scale", "vision_model.embeddings.position_ids"]
        }
        false => &["model.layers.0.self_attn.rotary_emb.inv_freq"],
    };
    all.extend(beside.iter().map(|name| (name.to_string(), extra.clone())));
    all
}

enum Layout {
    Whole,
    Sharded,
    Bin,
    ShardedBin,
}

fn write(folder: &Path, config: &serde_json::Value, tensors: &[(String, Tensor)], layout: Layout) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let save = |name: &str, part: &[(String, Tensor)]| {
        let path = folder.join(name);
        if name.ends_with(".bin") {
            torch::save_f32(fs::File::create(path).unwrap(), part);
        } else {
            save_safetensors(path, part.iter().map(|(n, t)| (n.as_str(), t)), &BTreeMap::new()).unwrap();
        }
    };
    let shards = |stem: &str, end: &str| {
        let mut map = BTreeMap::new();
        for (i, part) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
            let file = format!("{stem}-0000{}-of-00002.{end}", i + 1);
            save(&file, part);
            map.extend(part.iter().map(|(name, _)| (name, file.clone())));
        }
        let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
        fs::write(folder.join(format!("{stem}.{end}.index.json")), index.to_string()).unwrap();
    };
    match layout {
        Layout::Whole => save("model.safetensors", tensors),
        Layout::Bin => save("pytorch_model.bin", tensors),
        Layout::Sharded => shards("model", "safetensors"),
        Layout::ShardedBin => shards("pytorch_model", "bin"),
    }
}

/// The published configurations, with keys that have no effect here.
fn configs(c: &Config) -> (serde_json::Value, serde_json::Value) {
    let mut vision = serde_json::to_value(&c.vision).unwrap();
    vision["dropout"] = json!(0.0);
    let mut text = serde_json::to_value(&c.text).unwrap();
    text["model_type"] = json!("phi");
    text["architectures"] = json!(["PhiForCausalLM"]);
    (json!({"model_type": "clip", "projection_dim": 7, "vision_config": vision, "text_config": {}}), text)
}

#[test]
fn published_folders_start_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let (vision, text) = (dir.path().join("clip"), dir.path().join("phi"));
    let mut old = lively(&config());
    let (clip, phi) = (published(&mut old, true), published(&mut old, false));
    let (vision_config, text_config) = configs(&config());
    for (a, b) in [
        (Layout::Whole, Layout::Sharded),
        (Layout::Bin, Layout::ShardedBin),
        (Layout::ShardedBin, Layout::Bin),
    ] {
        for folder in [&vision, &text] {
            let _ = fs::remove_dir_all(folder);
        }
        write(&vision, &vision_config, &clip, a);
        write(&text, &text_config, &phi, b);
        // The sizes come from the backbone folders, the connector from our configuration.
        let joined = Config { connector: config().connector, ..Config::default() };
        let joined = joined.with_backbones(Some(&vision), Some(&text)).unwrap();
        assert_eq!((&joined.vision, &joined.text), (&config().vision, &config().text));
        let mut told = Vec::new();
        let progress = |done, all| told.push((done, all));
        let mut new =
            Pheye::from_backbones(&joined, Some(&vision), Some(&text), 1, Options::default(), progress)
                .unwrap();
        assert!(told.is_sorted() && told.iter().all(|(_, all)| *all == told[0].1), "{told:?}");
        assert!(told.last().is_some_and(|(done, all)| done == all), "{told:?}");
        let old = old.params_mut();
        let mut compared = 0;
        for p in new.params_mut().into_iter().filter(|p| !Pheye::is_pheye_param(&p.name)) {
            let was = old.iter().find(|o| o.name == p.name).unwrap();
            assert_eq!(values(&p.value), values(&was.value), "{}", p.name);
            compared += 1;
        }
        assert!(compared > 60, "{compared}");
    }
}

/// From version 5.6 on, transformers saves a CLIPVisionModel without `vision_model.` in its names.
#[test]
fn towers_without_the_outer_name_start_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let (vision, text) = (dir.path().join("clip"), dir.path().join("phi"));
    let mut old = lively(&config());
    let (clip, phi) = (published(&mut old, true), published(&mut old, false));
    let bare =
        clip.iter().filter_map(|(name, t)| Some((name.strip_prefix("vision_model.")?.to_owned(), t.clone())));
    let (vision_config, text_config) = configs(&config());
    let mut alone = vision_config["vision_config"].clone();
    alone["model_type"] = json!("clip_vision_model");
    write(&vision, &alone, &bare.collect::<Vec<_>>(), Layout::Whole);
    write(&text, &text_config, &phi, Layout::Whole);
    let c = Config { connector: config().connector, ..Config::default() };
    let c = c.with_backbones(Some(&vision), Some(&text)).unwrap();
    let mut new =
        Pheye::from_backbones(&c, Some(&vision), Some(&text), 1, Options::default(), |_, _| ()).unwrap();
    let old = old.params_mut();
    let tower = new.params_mut().into_iter().filter(|p| p.name.contains(".vision_model."));
    let tower: Vec<_> = tower.filter(|p| !Pheye::is_pheye_param(&p.name)).collect();
    assert!(tower.len() > 30, "{}", tower.len());
    for p in tower {
        let was = old.iter().find(|o| o.name == p.name).unwrap();
        assert_eq!(values(&p.value), values(&was.value), "{}", p.name);
    }
}

#[test]
fn what_a_published_folder_lacks_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (vision, text) = (dir.path().join("clip"), dir.path().join("phi"));
    let mut old = lively(&config());
    let (mut clip, phi) = (published(&mut old, true), published(&mut old, false));
    let (vision_config, text_config) = configs(&config());
    fs::create_dir_all(&vision).unwrap();
    let said = Config::default().with_backbones(Some(&vision), None).unwrap_err().to_string();
    assert!(said.contains("config.json"), "{said}");
    write(&text, &text_config, &phi, Layout::Whole);
    let said = Config::default().with_backbones(Some(&text), None).unwrap_err().to_string();
    assert!(said.contains("`model_type` is \"phi\"") && said.contains("clip"), "{said}");
    let load = || {
        Pheye::from_backbones(&config(), Some(&vision), Some(&text), 1, Options::default(), |_, _| ())
            .unwrap_err()
            .to_string()
    };
    assert!(load().contains("model.safetensors.index.json"), "{}", load());
    clip.retain(|(name, _)| name != "vision_model.encoder.layers.1.mlp.fc1.weight");
    clip.push((
        "vision_model.encoder.layers.2.mlp.fc1.weight".into(),
        Tensor::from_f32([1], &[0.0]).unwrap(),
    ));
    write(&vision, &vision_config, &clip, Layout::Whole);
    let said = load();
    assert!(said.contains("missing `vision_model.encoder.layers.1.mlp.fc1.weight`"), "{said}");
    assert!(said.contains("unused `vision_model.encoder.layers.2.mlp.fc1.weight`"), "{said}");
}

/// A file of a whole Pheye model gives its tower, or its language model, and nothing that Pheye trains.
#[test]
fn a_pheye_model_gives_its_backbones_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut whole = lively(&config());
    whole.save(dir.path()).unwrap();
    let file = dir.path().join("model.safetensors");
    let start = |vision: Option<&Path>, text: Option<&Path>| {
        Pheye::from_backbones(&config(), vision, text, 5, Options::default(), |_, _| ()).unwrap()
    };
    let mut random = start(None, None);
    for (vision, text) in [(true, true), (true, false), (false, true)] {
        let given = |is: bool| is.then_some(file.as_path());
        let mut model = start(given(vision), given(text));
        for ((new, old), fresh) in model.params_mut().iter().zip(whole.params_mut()).zip(random.params_mut())
        {
            let of_part = if new.name.starts_with("vision_encoder.") { vision } else { text };
            let from = if of_part && !Pheye::is_pheye_param(&new.name) { old } else { fresh };
            assert_eq!(values(&new.value), values(&from.value), "{}", new.name);
        }
    }
}
