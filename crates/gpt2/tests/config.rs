//! Invalid sizes, and keys of `config.json` that this network does not compute, are rejected by name.

use std::path::Path;

use pheye_gpt2::{Config, Error};
use serde_json::{Value, json};

/// An option, the rule in its error, and a change that makes it invalid.
type Fault = (&'static str, &'static str, fn(&mut Config));

#[test]
fn every_rule_names_its_option() {
    let faults: [Fault; 17] = [
        ("vocab_size", "positive", |c| c.vocab_size = 0),
        ("n_positions", "positive", |c| c.n_positions = 0),
        ("n_embd", "positive", |c| c.n_embd = 0),
        ("n_layer", "positive", |c| c.n_layer = 0),
        ("n_head", "positive", |c| c.n_head = 0),
        ("n_inner", "positive", |c| c.n_inner = Some(0)),
        ("n_embd", "12 heads needs a multiple of 8", |c| c.n_embd = 769),
        ("n_embd", "multiple of 8", |c| c.n_embd = 12 * 12),
        ("layer_norm_epsilon", "positive", |c| c.layer_norm_epsilon = 0.0),
        ("layer_norm_epsilon", "positive", |c| c.layer_norm_epsilon = f32::NAN),
        ("layer_norm_epsilon", "positive", |c| c.layer_norm_epsilon = f32::INFINITY),
        ("vocab_size", "at most 16777216", |c| c.vocab_size = usize::MAX),
        ("n_positions", "at most 1048576", |c| c.n_positions = 1 << 40),
        ("n_embd", "at most 65536", |c| c.n_embd = 1 << 62),
        ("n_layer", "at most 1024", |c| c.n_layer = 1025),
        ("n_head", "at most 65536", |c| c.n_head = usize::MAX),
        ("n_inner", "at most 1048576", |c| c.n_inner = Some(1 << 32)),
    ];
    for (named, rule, spoil) in faults {
        let mut config = Config::default();
        spoil(&mut config);
        let error = config.validate().unwrap_err();
        assert!(error.to_string().contains(rule), "{error}");
        assert!(matches!(error, Error::Config { option, .. } if option == named));
    }
}

fn read(value: &Value) -> Result<Config, String> {
    Config::from_transformers(Path::new("folder/config.json"), "", value).map_err(|e| e.to_string())
}

/// The configurations of published models, from the smallest on: as the first versions of transformers wrote them, and
/// with what later ones add.
#[test]
fn published_configurations_are_read() {
    let old = json!({
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12,
        "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null,
        "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
        "summary_use_proj": true, "vocab_size": 50257,
        "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
    });
    let config = read(&old).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!((config.head_dim(), config.inner()), (64, 3072));
    let mut new = old;
    for (key, value) in [
        ("n_inner", json!(null)),
        ("n_special", json!(0)),
        ("predict_special_tokens", json!(true)),
        ("output_past", json!(true)),
        ("n_ctx", json!(512)),
        ("scale_attn_weights", json!(true)),
        ("scale_attn_by_inverse_layer_idx", json!(false)),
        ("reorder_and_upcast_attn", json!(false)),
        ("add_cross_attention", json!(false)),
        ("tie_word_embeddings", json!(true)),
        ("hidden_size", json!(768)),
        ("torch_dtype", json!("float32")),
        ("use_cache", json!(true)),
    ] {
        new[key] = value;
    }
    assert_eq!(read(&new).unwrap(), Config::default());
    let large = json!({"n_embd": 1280, "n_layer": 36, "n_head": 20, "n_inner": 100});
    assert_eq!(read(&large).unwrap().inner(), 100);
}

#[test]
fn what_this_network_does_not_compute_is_refused_by_name() {
    for (key, value, rule) in [
        ("model_type", json!("gptj"), "another kind"),
        ("activation_function", json!("relu"), "tanh form of GELU (gelu_new, gelu_pytorch_tanh)"),
        ("activation_function", json!("gelu"), "tanh form of GELU"),
        ("scale_attn_by_inverse_layer_idx", json!(true), "it must be off"),
        ("reorder_and_upcast_attn", json!(true), "it must be off"),
        ("add_cross_attention", json!(true), "it must be off"),
        ("n_special", json!(3), "it must be off"),
        ("scale_attn_weights", json!(false), "it must be true"),
        ("tie_word_embeddings", json!(false), "it must be true"),
        ("tie_word_embeddings", json!("yes"), "it must be true"),
        ("hidden_size", json!(1024), "it must be n_embd"),
        ("max_position_embeddings", json!(512), "it must be n_positions"),
        ("rotary_dim", json!(64), "not known"),
        ("n_inner", json!("wide"), "invalid type"),
        ("n_layer", json!(-1), "invalid value"),
        ("n_head", json!(null), "invalid type"),
        ("n_head", json!(7), "7 heads"),
    ] {
        let error = read(&json!({ key: value })).unwrap_err();
        let named = error.contains(key) || (key == "n_head" && error.contains("n_embd"));
        assert!(error.starts_with("folder/config.json: ") && named && error.contains(rule), "{error}");
    }
    let nested =
        Config::from_transformers(Path::new("config.json"), "text_config.", &json!({"n_layer": "two"}));
    assert!(nested.unwrap_err().to_string().contains("`text_config.n_layer`"));
}
