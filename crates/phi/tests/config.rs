//! Invalid sizes are rejected with the name of the option.

use pheye_phi::Config;

/// An option, the rule in its error, and a change that makes it invalid.
type Fault = (&'static str, &'static str, fn(&mut Config));

#[test]
fn every_rule_names_its_option() {
    let faults: [Fault; 22] = [
        ("vocab_size", "positive", |c| c.vocab_size = 0),
        ("hidden_size", "positive", |c| c.hidden_size = 0),
        ("intermediate_size", "positive", |c| c.intermediate_size = 0),
        ("num_hidden_layers", "positive", |c| c.num_hidden_layers = 0),
        ("num_attention_heads", "positive", |c| c.num_attention_heads = 0),
        ("max_position_embeddings", "positive", |c| c.max_position_embeddings = 0),
        ("hidden_size", "32 heads needs a multiple of 8", |c| c.hidden_size = 2049),
        ("hidden_size", "multiple of 8", |c| c.hidden_size = 32 * 12),
        ("partial_rotary_factor", "even part of a head of 64", |c| c.partial_rotary_factor = 0.05),
        ("partial_rotary_factor", "even part", |c| c.partial_rotary_factor = 1.5),
        ("partial_rotary_factor", "even part", |c| c.partial_rotary_factor = f32::NAN),
        ("rope_theta", "positive", |c| c.rope_theta = 0.0),
        ("layer_norm_eps", "positive", |c| c.layer_norm_eps = -1e-5),
        ("layer_norm_eps", "positive", |c| c.layer_norm_eps = f32::INFINITY),
        ("rope_factor", "positive", |c| c.rope_factor = 0.0),
        ("vocab_size", "at most 16777216", |c| c.vocab_size = usize::MAX),
        ("hidden_size", "at most 65536", |c| c.hidden_size = 1 << 62),
        ("intermediate_size", "at most 1048576", |c| c.intermediate_size = 1 << 32),
        ("num_hidden_layers", "at most 1024", |c| c.num_hidden_layers = 1025),
        ("num_attention_heads", "at most 65536", |c| c.num_attention_heads = usize::MAX),
        ("max_position_embeddings", "at most 1048576", |c| c.max_position_embeddings = 1 << 40),
        ("max_position_embeddings", "at most 131072 where 512 columns turn", |c| {
            (c.num_attention_heads, c.max_position_embeddings) = (2, 1 << 20);
        }),
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
fn phi_1_5_is_possible() {
    let config = Config::default();
    config.validate().unwrap();
    assert_eq!((config.head_dim(), config.rotary_dim()), (64, 32));
}
