//! Configurations written by transformers: each key is either computed or rejected by name.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{batch, config, lively, values};
use pheye_model::{Config, Options, Pheye};
use pheye_ops::Cx;
use pheye_phi::Config as Phi;
use serde_json::{Value, json};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/phi").join(name)
}

/// `value` with the keys of `other` added or replaced.
fn with(mut value: Value, other: &Value) -> Value {
    for (key, v) in other.as_object().unwrap() {
        value[key] = v.clone();
    }
    value
}

/// The configuration of the weights in `tests/data/phi`.
fn phi() -> Value {
    json!({
        "model_type": "phi", "hidden_act": "gelu_new", "vocab_size": 64, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "layer_norm_eps": 1e-5,
        "max_position_embeddings": 64,
    })
}

fn tower() -> Value {
    json!({
        "model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 32, "patch_size": 8, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
    })
}

/// A temporary folder with this `config.json`.
fn folder(config: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

fn text(config: &Value) -> Result<Phi, String> {
    let read = Config::default().with_backbones(None, Some(folder(config).path()));
    read.map(|c| c.text).map_err(|e| e.to_string())
}

fn vision(config: &Value) -> Result<pheye_vit::Config, String> {
    let read = Config::default().with_backbones(Some(folder(config).path()), None);
    read.map(|c| c.vision).map_err(|e| e.to_string())
}

/// Logits after the last of `ids`, computed by only the language model of this configuration with these
/// weights.
fn logits(weights: &str, changes: &Value, ids: &[u32]) -> Vec<f32> {
    let (vision, text) = (folder(&tower()), folder(&with(phi(), changes)));
    fs::copy(data(weights), text.path().join("model.safetensors")).unwrap();
    let mut c = Config::default().with_backbones(Some(vision.path()), Some(text.path())).unwrap();
    (c.connector.level, c.connector.cross_interval) = (1, 1);
    let mut random = Pheye::random(&Config { text: config().text, ..c.clone() }, 1).unwrap();
    let params = random.params_mut();
    let tower = params.iter().filter(|p| p.name.contains(".vision_model.") && !p.name.contains(".lora_"));
    let tower = tower.map(|p| (p.name.as_str(), &p.value));
    pheye_weights::save_safetensors(vision.path().join("model.safetensors"), tower, &Default::default())
        .unwrap();
    let mut model =
        Pheye::from_backbones(&c, Some(vision.path()), Some(text.path()), 1, Options::default(), |_, _| ())
            .unwrap();
    // With these weights at zero, cross-attention adds nothing to the language model.
    for p in model.params_mut() {
        if p.name.contains("cross_attn_layers.") && (p.name.contains("to_out") || p.name.contains("fc2")) {
            p.value.f32_mut().unwrap().fill(0.0);
        }
    }
    let mut asked = batch(&c, &[ids.len()]);
    asked.ids = ids.to_vec();
    let media = model.encode(&Cx::cpu(), &asked.pixels, 1).unwrap();
    let all = values(&model.logits(&Cx::cpu(), &media, &asked).unwrap());
    all[all.len() - c.text.vocab_size..].to_vec()
}

#[test]
fn logits_are_those_of_transformers() {
    let expected: Value = serde_json::from_slice(&fs::read(data("logits.json")).unwrap()).unwrap();
    let ids: Vec<u32> = serde_json::from_value(expected["ids"].clone()).unwrap();
    let quarter = json!({"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25});
    for (case, weights, changes) in [
        ("phi_v5_partial_rotary", "untied.safetensors", json!({"rope_parameters": quarter})),
        ("phi_v5_partial_rotary", "untied.safetensors", json!({"partial_rotary_factor": 0.25})),
        (
            "phi_rope_scaling_linear",
            "untied.safetensors",
            json!({"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 10000.0}),
        ),
        (
            "phi_rope_scaling_linear",
            "untied.safetensors",
            json!({"rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 10000}}),
        ),
        ("phi_tied", "tied.safetensors", json!({"tie_word_embeddings": true})),
    ] {
        let theirs: Vec<f32> = serde_json::from_value(expected[case].clone()).unwrap();
        let ours = logits(weights, &changes, &ids);
        // The expected logits are written with six decimals.
        let largest = theirs.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
        let apart = ours.iter().zip(&theirs).fold(0.0, |m: f32, (a, b)| m.max((a - b).abs()));
        assert!(ours.len() == theirs.len() && apart < 1e-6 + 1e-6 * largest, "{case}: {apart} of {largest}");
    }
}

#[test]
fn both_spellings_say_the_same() {
    let new = |keys: Value| text(&with(phi(), &json!({ "rope_parameters": keys }))).unwrap();
    let old = |keys: Value| text(&with(phi(), &keys)).unwrap();
    let plain = old(json!({}));
    assert_eq!((plain.rope_theta, plain.partial_rotary_factor, plain.rope_factor), (10000.0, 0.5, 1.0));
    for keys in
        [json!({"rope_theta": 500.0}), json!({"partial_rotary_factor": 0.25}), json!({"rope_theta": 7})]
    {
        let (a, b) = (new(with(keys.clone(), &json!({"rope_type": "default"}))), old(keys));
        assert!(a == b && a != plain, "{a:?} {b:?}");
    }
    // transformers 5 writes its default beside the nested key; the nested key takes precedence.
    let both = json!({"partial_rotary_factor": 0.5, "rope_parameters": {"partial_rotary_factor": 0.25}});
    assert_eq!(old(both).partial_rotary_factor, 0.25);
    for nothing in
        [json!({"rope_scaling": null}), json!({"rope_parameters": {}}), json!({"rope_scaling": {}})]
    {
        assert_eq!(old(nothing), plain);
    }
}

#[test]
fn what_says_nothing_about_the_network_is_passed_over() {
    let plain = text(&phi()).unwrap();
    for keys in [
        json!({"hidden_act": "gelu_pytorch_tanh", "num_key_value_heads": null, "head_dim": 16, "qk_layernorm": false}),
        json!({"num_key_value_heads": 2, "attention_dropout": 0.1, "resid_pdrop": 0.1, "embd_pdrop": 0.0}),
        json!({"architectures": ["PhiForCausalLM"], "torch_dtype": "float16", "dtype": "float32", "use_cache": true,
            "transformers_version": "5.24.0", "_name_or_path": "x", "bos_token_id": 1, "eos_token_id": [2, 3],
            "initializer_range": 0.02, "id2label": {"0": "A"}, "temperature": 0.7, "top_k": 4, "auto_map": {"a": "b"},
            "output_attentions": false, "return_dict": true, "is_decoder": true}),
        json!({"pruned_heads": {}, "add_cross_attention": false, "quantization_config": null, "something_new": null}),
        json!({"tie_word_embeddings": false, "is_encoder_decoder": false, "cross_attention_hidden_size": null}),
    ] {
        assert_eq!(text(&with(phi(), &keys)), Ok(plain.clone()), "{keys}");
    }
    let alone = vision(&tower()).unwrap();
    let beside = json!({"projection_dim": 16, "num_channels": 3, "attention_dropout": 0.0, "dropout": 0.0,
        "initializer_factor": 1.0, "initializer_range": 0.02, "tie_word_embeddings": true});
    let full = with(tower(), &beside);
    assert_eq!(vision(&full).as_ref(), Ok(&alone));
    let clip = json!({"model_type": "clip", "vision_config": full, "text_config": {"hidden_act": "relu"},
        "projection_dim": 16, "logit_scale_init_value": 2.6592, "torch_dtype": "float32"});
    assert_eq!(vision(&clip).as_ref(), Ok(&alone));
    let twice = with(clip, &json!({"vision_config_dict": tower(), "text_config_dict": null}));
    assert_eq!(vision(&twice).as_ref(), Ok(&alone));
}

/// A key, and the change of the configuration that causes an error about it.
type Fault = (&'static str, Value);

#[test]
fn what_the_language_model_does_not_compute_is_refused_by_its_key() {
    let rope = |keys: Value| json!({ "rope_parameters": keys });
    let faults: [Fault; 30] = [
        ("model_type", json!({"model_type": "llama"})),
        ("model_type", json!({"model_type": "phi-msft"})),
        ("model_type", json!({"model_type": 7})),
        ("hidden_act", json!({"hidden_act": "gelu"})),
        ("hidden_act", json!({"hidden_act": "relu"})),
        ("qk_layernorm", json!({"qk_layernorm": true})),
        ("num_key_value_heads", json!({"num_key_value_heads": 1})),
        ("head_dim", json!({"head_dim": 32})),
        ("head_dim", json!({"head_dim": u64::MAX})),
        ("tie_word_embeddings", json!({"tie_word_embeddings": "yes"})),
        ("rope_scaling.type", json!({"rope_scaling": {"type": "dynamic", "factor": 4.0}})),
        ("rope_scaling.factor", json!({"rope_scaling": {"type": "linear"}})),
        ("rope_scaling.factor", json!({"rope_scaling": {"type": "linear", "factor": -1}})),
        ("rope_scaling.factor", json!({"rope_scaling": {"factor": 2.0}})),
        ("rope_scaling", json!({"rope_scaling": "linear"})),
        ("rope_scaling", json!({"rope_scaling": {"rope_theta": 1}, "rope_parameters": {"rope_theta": 2}})),
        ("rope_parameters.rope_type", rope(json!({"rope_type": "yarn", "factor": 4.0}))),
        ("rope_parameters.type", rope(json!({"rope_type": "linear", "type": "default", "factor": 4.0}))),
        ("rope_parameters.attention_factor", rope(json!({"attention_factor": 1.0}))),
        ("rope_parameters.full_attention", rope(json!({"full_attention": {"rope_theta": 1.0}}))),
        ("rope_theta", rope(json!({"rope_theta": "10000"}))),
        ("rope_theta", json!({"rope_theta": -1})),
        ("partial_rotary_factor", rope(json!({"partial_rotary_factor": 2}))),
        ("hidden_size", json!({"hidden_size": "32"})),
        ("vocab_size", json!({"vocab_size": null})),
        ("quantization_config", json!({"quantization_config": {"bits": 4}})),
        ("add_cross_attention", json!({"add_cross_attention": true})),
        ("pruned_heads", json!({"pruned_heads": {"0": [1]}})),
        ("sliding_window", json!({"sliding_window": 4096})),
        ("a\\u{1b}[31m", json!({"a\u{1b}[31m": 1})),
    ];
    for (key, keys) in faults {
        let said = text(&with(phi(), &keys)).expect_err(key);
        assert!(said.contains("config.json: ") && said.contains(key), "{keys}: {said}");
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
    assert!(text(&json!([1])).unwrap_err().contains("must be a JSON object"));
}

#[test]
fn what_the_tower_does_not_compute_is_refused_by_its_key() {
    let clip = |keys: Value| json!({"model_type": "clip", "vision_config": with(tower(), &keys)});
    let faults: [Fault; 11] = [
        ("model_type", with(tower(), &json!({"model_type": "siglip_vision_model"}))),
        ("hidden_act", with(tower(), &json!({"hidden_act": "gelu_new"}))),
        ("num_channels", with(tower(), &json!({"num_channels": 1}))),
        ("vision_use_head", with(tower(), &json!({"vision_use_head": false, "pruned_heads": {}}))),
        ("vision_config.model_type", clip(json!({"model_type": "siglip_vision_model"}))),
        ("vision_config.hidden_act", clip(json!({"hidden_act": "relu"}))),
        ("vision_config.image_size", clip(json!({"image_size": [224, 224]}))),
        ("vision_config.qkv_bias", clip(json!({"qkv_bias": false}))),
        ("`vision_config`", json!({"model_type": "clip", "text_config": {}})),
        ("vision_config_dict", with(clip(json!({})), &json!({"vision_config_dict": {"patch_size": 16}}))),
        ("quantization_config", with(clip(json!({})), &json!({"quantization_config": {"bits": 4}}))),
    ];
    for (key, config) in faults {
        let said = vision(&config).expect_err(key);
        assert!(said.contains("config.json: ") && said.contains(key), "{config}: {said}");
    }
}

/// The golden folder `level1` with changed configurations and without its checkpoint.
fn released(part: &str, changes: &Value) -> Result<Config, String> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/level1");
    let top = tempfile::tempdir().unwrap();
    for file in ["config.json", "encoder/config.json", "decoder/config.json"] {
        let mut value: Value = serde_json::from_slice(&fs::read(golden.join(file)).unwrap()).unwrap();
        if file.starts_with(part) {
            value = with(value, changes);
        }
        let to = top.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        // A byte order mark must be ignored.
        fs::write(to, format!("\u{feff}{value}")).unwrap();
    }
    Config::load(top.path()).map_err(|e| e.to_string())
}

#[test]
fn released_folders_are_read_by_the_same_rules() {
    let plain = released("", &json!({})).unwrap();
    assert_eq!(plain.text.partial_rotary_factor, 0.5);
    let quarter = json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25, "rope_theta": 500}});
    let read = released("decoder", &quarter).unwrap();
    assert_eq!((read.text.partial_rotary_factor, read.text.rope_theta), (0.25, 500.0));
    let linear = json!({"rope_scaling": {"type": "linear", "factor": 4.0}});
    assert_eq!(released("decoder", &linear).unwrap().text.rope_factor, 4.0);
    for (part, key, keys) in [
        ("decoder", "hidden_act", json!({"hidden_act": "relu"})),
        ("decoder", "model_type", json!({"model_type": "llama"})),
        ("decoder", "tie_word_embeddings", json!({"tie_word_embeddings": true})),
        ("decoder", "rope_scaling.type", json!({"rope_scaling": {"type": "dynamic", "factor": 4.0}})),
        ("encoder", "model_type", json!({"model_type": "siglip"})),
        ("config", "first_level", json!({"first_level": "yes"})),
        ("config", "level", json!({"level": "2"})),
        ("config", "level", json!({"level": 9})),
        ("config", "resampler", json!({"resampler": 64})),
        ("config", "encoder", json!({"encoder": 3})),
    ] {
        let said = released(part, &keys).expect_err(key);
        assert!(said.contains("config.json: ") && said.contains(key), "{keys}: {said}");
    }
}

#[test]
fn sizes_beyond_reason_are_refused_at_once_by_their_key() {
    let mut model = lively(&config());
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path()).unwrap();
    let own: Value = serde_json::from_slice(&fs::read(dir.path().join("pheye.json")).unwrap()).unwrap();
    let keys = own.as_object().unwrap().iter().flat_map(|(part, keys)| {
        let keys = keys.as_object().unwrap().iter().filter(|(_, value)| value.is_u64());
        keys.map(|(key, _)| (part.clone(), key.clone())).collect::<Vec<_>>()
    });
    let keys: Vec<_> = keys.collect();
    assert!(keys.len() > 15, "{keys:?}");
    for (part, key) in keys {
        for value in
            [json!(1_000_000_000), json!(1u64 << 62), json!(u64::MAX), json!(1e12), json!(-1), json!("1")]
        {
            let mut spoiled = own.clone();
            spoiled[&part][&key] = value.clone();
            fs::write(dir.path().join("pheye.json"), spoiled.to_string()).unwrap();
            let faults = [
                Config::load(dir.path()).map(|_| ()).unwrap_err(),
                Pheye::load(dir.path(), Options::default()).map(|_| ()).unwrap_err(),
                pheye_model::Conversion::open(dir.path(), &|_| None, [None, None]).map(|_| ()).unwrap_err(),
            ];
            for said in faults.map(|e| e.to_string()) {
                assert!(said.contains("pheye.json: ") && said.contains(&key), "{part}.{key} {value}: {said}");
            }
        }
    }
}

#[test]
fn backbones_that_do_not_fit_are_told_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = lively(&config());
    model.save(dir.path()).unwrap();
    let file = dir.path().join("model.safetensors");
    // The cross-attention blocks of these sizes would need a terabyte.
    let mut wide = config();
    (wide.text.hidden_size, wide.text.num_attention_heads) = (1 << 16, 1 << 10);
    (wide.text.num_hidden_layers, wide.connector.cross_interval) = (1 << 10, 1);
    let said =
        Pheye::from_backbones(&wide, Some(&file), Some(&file), 1, Options::default(), |_, _| ()).unwrap_err();
    assert!(said.to_string().contains("does not fit"), "{said}");
}

/// A device in place of a file would be read without end, and opening a FIFO would block.
#[cfg(unix)]
#[test]
fn configurations_are_regular_files() {
    for name in ["pheye.json", "config.json"] {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join(name)).unwrap();
        let error = Config::load(dir.path()).unwrap_err();
        let cause = std::error::Error::source(&error).expect("a cause").to_string();
        assert!(error.to_string().ends_with(&format!("{name}: cannot be read")), "{error}");
        assert!(cause.contains("it is a device, not a regular file"), "{cause}");
    }
}
