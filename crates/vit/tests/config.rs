//! Invalid sizes are rejected with the name of the option.

use pheye_vit::{Config, HiddenAct};

/// An option, the rule in its error, and a change that makes it invalid.
type Fault = (&'static str, &'static str, fn(&mut Config));

#[test]
fn every_rule_names_its_option() {
    let faults: [Fault; 16] = [
        ("hidden_size", "positive", |c| c.hidden_size = 0),
        ("intermediate_size", "positive", |c| c.intermediate_size = 0),
        ("num_hidden_layers", "positive", |c| c.num_hidden_layers = 0),
        ("num_attention_heads", "positive", |c| c.num_attention_heads = 0),
        ("image_size", "positive", |c| c.image_size = 0),
        ("patch_size", "positive", |c| c.patch_size = 0),
        ("hidden_size", "12 heads needs a multiple of 8", |c| c.hidden_size = 769),
        ("hidden_size", "multiple of 8", |c| c.hidden_size = 12 * 12),
        ("image_size", "patch size 32", |c| c.image_size = 225),
        ("layer_norm_eps", "positive", |c| c.layer_norm_eps = 0.0),
        ("layer_norm_eps", "positive", |c| c.layer_norm_eps = f32::NAN),
        ("hidden_size", "at most 65536", |c| c.hidden_size = 1 << 62),
        ("intermediate_size", "at most 1048576", |c| c.intermediate_size = 1 << 32),
        ("num_hidden_layers", "at most 1024", |c| c.num_hidden_layers = 65_535),
        ("image_size", "at most 4096", |c| c.image_size = 1 << 20),
        ("patch_size", "at most 4096", |c| c.patch_size = usize::MAX),
    ];
    for (option, rule, spoil) in faults {
        let mut config = Config::default();
        spoil(&mut config);
        let error = config.validate().unwrap_err();
        assert_eq!(error.option, option);
        assert!(error.to_string().contains(rule), "{error}");
    }
}

#[test]
fn known_sizes_are_possible() {
    for (config, tokens, head_dim) in [(Config::default(), 50, 64), (Config::h14(), 257, 80)] {
        config.validate().unwrap();
        assert_eq!((config.tokens(), config.head_dim()), (tokens, head_dim));
        assert_eq!(config.hidden_act, HiddenAct::QuickGelu);
    }
}
