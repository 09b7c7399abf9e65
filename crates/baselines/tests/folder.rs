//! Folders of systems: written and read again, over published backbones, and damaged.

mod common;

use std::path::Path;

use common::{batch, every_kind, random};
use pheye_baselines::{Baseline, Config, is_baseline};
use pheye_gpt2::Gpt2;
use pheye_model::Options;
use pheye_ops::{Cx, RandomInit};
use pheye_tensor::Scope;
use pheye_vit::Vit;
use pheye_weights::{Checkpoint, save_safetensors};

fn load(folder: &Path) -> pheye_baselines::Result<Baseline> {
    Baseline::load(folder, Options::default(), |_, _| ())
}

#[test]
fn a_written_system_is_read_with_the_same_bits() {
    for (name, config) in every_kind() {
        let dir = tempfile::tempdir().unwrap();
        let mut model = random(&config, 2);
        model.save(dir.path()).unwrap();
        assert!(is_baseline(dir.path()));
        assert_eq!(Config::load(dir.path()).unwrap(), config, "{name}");
        let mut read = load(dir.path()).unwrap();
        let (ours, theirs) = (model.params_mut(), read.params_mut());
        assert_eq!(ours.len(), theirs.len());
        for (a, b) in ours.iter().zip(&theirs) {
            assert_eq!((&a.name, a.value.f32().unwrap()), (&b.name, b.value.f32().unwrap()), "{name}");
        }
        let bf16 = Baseline::load(dir.path(), Options::BF16, |_, _| ()).unwrap();
        let batch = batch(&config, 1, &[(0, 5)]);
        let [full, half] = [&read, &bf16].map(|m| m.loss(&Cx::cpu(), &batch).unwrap().sum);
        assert!((full - half).abs() < 0.1 * full, "{name}: {full} {half}");
    }
}

/// The tensors of SmallCap's published checkpoints: GPT-2's linears are [in, out], c_attn is one tensor.
#[test]
fn files_have_the_published_names() {
    let (_, config) = every_kind().into_iter().find(|(name, _)| *name == "none, tiles").unwrap();
    let dir = tempfile::tempdir().unwrap();
    random(&config, 2).save(dir.path()).unwrap();
    let file = Checkpoint::open(dir.path().join("model.safetensors")).unwrap();
    let shape = |name: &str| file.info(name).map(|(shape, _)| shape.dims().to_vec());
    let layer = "decoder.transformer.h.2";
    assert_eq!(shape(&format!("{layer}.attn.c_attn.weight")).unwrap(), [24, 72]);
    assert_eq!(shape(&format!("{layer}.crossattention.c_attn.weight")).unwrap(), [24, 48]);
    assert_eq!(shape(&format!("{layer}.crossattention.q_attn.bias")).unwrap(), [24]);
    assert_eq!(shape(&format!("{layer}.ln_cross_attn.weight")).unwrap(), [24]);
    assert_eq!(shape(&format!("{layer}.mlp.c_fc.weight")).unwrap(), [24, 96]);
    assert_eq!(shape("enc_to_dec_proj.weight").unwrap(), [24, 16]);
    assert_eq!(shape("positions.weight").unwrap(), [5, 16]);
    assert!(shape("encoder.embeddings.patch_embedding.base_layer.weight").is_some());
    assert!(shape("encoder.encoder.layers.0.self_attn.q_proj.lora_A.second.weight").is_some());
    let (_, plain) = every_kind().into_iter().find(|(name, _)| *name == "smallcap").unwrap();
    random(&plain, 2).save(dir.path()).unwrap();
    let file = Checkpoint::open(dir.path().join("model.safetensors")).unwrap();
    assert!(file.info("encoder.embeddings.patch_embedding.weight").is_some());
    assert!(!file.names().any(|name| name.contains("base_layer")));
}

/// A CLIP folder and a GPT-2 folder become a new system: their weights are frozen in it, the rest is random.
#[test]
fn published_backbones_start_a_system() {
    for (name, config) in every_kind() {
        let dir = tempfile::tempdir().unwrap();
        let (clip, gpt2) = (dir.path().join("clip"), dir.path().join("gpt2"));
        std::fs::create_dir(&clip).unwrap();
        let mut random = RandomInit::new(3);
        let mut tower =
            Vit::new(&mut Scope::new(&mut random, "vision_model"), &config.vision, &[None, None]).unwrap();
        let tower = tower.params_mut();
        let named: Vec<_> = tower.iter().map(|p| (p.name.replace(".base_layer", ""), &p.value)).collect();
        let tensors = named.iter().map(|(name, value)| (name.as_str(), *value));
        save_safetensors(clip.join("model.safetensors"), tensors, &Default::default()).unwrap();
        let mut vision = serde_json::to_value(&config.vision).unwrap();
        vision["model_type"] = "clip_vision_model".into();
        std::fs::write(clip.join("config.json"), vision.to_string()).unwrap();
        let mut text = Gpt2::new(&mut Scope::new(&mut random, "transformer"), &config.text).unwrap();
        text.save(&gpt2).unwrap();

        let sizes = Config { vision: Default::default(), text: Default::default(), ..config.clone() };
        let read = sizes.with_backbones(Some(&clip), Some(&gpt2)).unwrap();
        assert_eq!(read, config, "{name}");
        let start = |seed| {
            let options = Options::default();
            Baseline::from_backbones(&read, Some(&clip), Some(&gpt2), seed, options).unwrap()
        };
        let (mut one, mut two) = (start(1), start(2));
        let (one, two) = (one.params_mut(), two.params_mut());
        let published = |name: &str| {
            (name.starts_with("encoder.") || name.starts_with("decoder."))
                && !name.contains(".lora_")
                && !name.contains("cross")
        };
        for (a, b) in one.iter().zip(&two) {
            let same = a.value.f32().unwrap() == b.value.f32().unwrap();
            let constant = a.value.f32().unwrap().iter().all(|x| *x == 0.0 || *x == 1.0);
            assert_eq!(same, published(&a.name) || constant, "{name}: {}", a.name);
        }
        let wte = one.iter().find(|p| p.name == "decoder.transformer.wte.weight").unwrap();
        assert_eq!(wte.value.f32().unwrap(), text.head.weight.value.f32().unwrap());
        let class = one.iter().find(|p| p.name == "encoder.embeddings.class_embedding").unwrap();
        let stored = tower.iter().find(|p| p.name.ends_with("class_embedding")).unwrap();
        assert_eq!(class.value.f32().unwrap(), stored.value.f32().unwrap());
    }
}

#[test]
fn damaged_folders_are_named() {
    let (_, config) = every_kind().swap_remove(0);
    let dir = tempfile::tempdir().unwrap();
    let mut model = random(&config, 2);
    model.save(dir.path()).unwrap();
    let file = dir.path().join("config.json");
    let good = std::fs::read_to_string(&file).unwrap();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        std::fs::write(&file, good.replacen(from, to, 1)).unwrap();
        load(dir.path()).unwrap_err().to_string()
    };
    assert!(with("\"fromage\"", "\"clip\"").contains("config.json"));
    assert!(with("\"train_vit\"", "\"trainvit\"").contains("`trainvit`"));
    assert!(with("\"level\": 1", "\"level\": 2").contains("level is 2"));
    let other = with("\"n_layer\": 3", "\"n_layer\": 4");
    assert!(other.contains("decoder.transformer.h.3."), "{other}");
    let unknown = with("\"patch_size\": 4", "\"patch_size\": 4, \"window\": 3");
    assert!(unknown.contains("vision_config.window"), "{unknown}");
    std::fs::write(&file, &good).unwrap();
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert!(load(dir.path()).unwrap_err().to_string().contains("holds no weights"));
    std::fs::remove_file(&file).unwrap();
    assert!(load(dir.path()).unwrap_err().to_string().contains("config.json"));
    assert!(!is_baseline(dir.path()));
}
