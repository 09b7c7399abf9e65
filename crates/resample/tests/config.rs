//! Configurations from files, invalid ones, and the parameters that a resampler asks for.

use std::collections::BTreeMap;

use pheye_ops::{Cx, RandomInit};
use pheye_resample::{Config, MonkeyConfig, PerceiverConfig, Resampler};
use pheye_tensor::{DType, Grads, Init, ParamTable, Scope, Shape, Source, Tensor};
use serde_json::json;

#[test]
fn files_name_the_kind_and_what_differs_from_the_published_sizes() {
    let read = |value| serde_json::from_value::<Config>(value);
    assert_eq!(read(json!({"kind": "monkey"})).unwrap(), Config::Monkey(MonkeyConfig::default()));
    assert_eq!(read(json!({"kind": "perceiver"})).unwrap(), Config::Perceiver(PerceiverConfig::default()));
    let flat =
        |kind| json!({"kind": kind, "queries": 10, "heads": 2, "head_dim": 16, "depth": 3, "ff_mult": 2});
    let monkey = MonkeyConfig { queries: 10, heads: 2, bias: true };
    assert_eq!(read(flat("monkey")).unwrap(), Config::Monkey(monkey));
    let perceiver =
        PerceiverConfig { queries: 10, depth: 3, heads: 2, head_dim: 16, ff_mult: 2, bias: false };
    assert_eq!(read(flat("perceiver")).unwrap(), Config::Perceiver(perceiver));
    for kind in ["monkey", "perceiver"] {
        let config = read(json!({"kind": kind, "queries": 17, "bias": true})).unwrap();
        assert_eq!(config.queries(), 17);
        let written = serde_json::to_value(&config).unwrap();
        assert_eq!(written["kind"], kind);
        assert_eq!(read(written).unwrap(), config);
        let unknown = read(json!({"kind": kind, "layers": 2})).unwrap_err().to_string();
        assert!(unknown.contains("`layers`"), "{unknown}");
    }
    assert!(read(json!({"queries": 5})).unwrap_err().to_string().contains("kind"));
}

/// An option, the rule in its error, and a change that makes it invalid.
type Fault<T> = (&'static str, &'static str, fn(&mut T));

#[test]
fn every_rule_names_its_option() {
    let of_monkey: [Fault<MonkeyConfig>; 7] = [
        ("queries", "positive", |c| c.queries = 0),
        ("queries", "1 + a square", |c| c.queries = 1),
        ("queries", "1 + a square", |c| c.queries = 256),
        ("queries", "at most 65536", |c| c.queries = usize::MAX),
        ("heads", "positive", |c| c.heads = 0),
        ("heads", "at most 4096", |c| c.heads = 1 << 40),
        ("hidden_size", "3 heads needs a multiple of 8", |c| c.heads = 3),
    ];
    for (option, rule, spoil) in of_monkey {
        let mut config = MonkeyConfig::default();
        spoil(&mut config);
        let error = config.validate(1024, 257).unwrap_err();
        assert_eq!(error.option, option);
        assert!(error.to_string().contains(rule), "{error}");
    }
    let of_perceiver: [Fault<PerceiverConfig>; 8] = [
        ("queries", "positive", |c| c.queries = 0),
        ("depth", "positive", |c| c.depth = 0),
        ("depth", "at most 1024", |c| c.depth = 1025),
        ("heads", "positive", |c| c.heads = 0),
        ("head_dim", "multiple of 8", |c| c.head_dim = 20),
        ("head_dim", "at most 65536", |c| c.head_dim = 1 << 20),
        ("ff_mult", "positive", |c| c.ff_mult = 0),
        ("ff_mult", "at most 64", |c| c.ff_mult = 65),
    ];
    for (option, rule, spoil) in of_perceiver {
        let mut config = PerceiverConfig::default();
        spoil(&mut config);
        let error = config.validate(1024).unwrap_err();
        assert_eq!(error.option, option);
        assert!(error.to_string().contains(rule), "{error}");
    }
    let monkey = |width, tokens| MonkeyConfig::default().validate(width, tokens).unwrap_err().option;
    assert_eq!([monkey(0, 257), monkey(1000, 257), monkey(1 << 20, 257)], ["hidden_size"; 3]);
    assert_eq!([monkey(1024, 0), monkey(1024, 1), monkey(1024, 256)], ["tokens"; 3]);
    assert_eq!(PerceiverConfig::default().validate(0).unwrap_err().option, "hidden_size");
    // A Perceiver takes any number of queries.
    let perceiver = Config::Perceiver(PerceiverConfig { queries: 7, ..PerceiverConfig::default() });
    perceiver.validate(1024, 50).unwrap();
    let small = Config::Monkey(MonkeyConfig { queries: 4, heads: 1, bias: true });
    let error = Resampler::new(&mut Scope::new(&mut RandomInit::new(1), ""), &small, 8, 5).unwrap_err();
    assert_eq!(error.option, "queries");
}

/// Records what is asked for, and gives nothing.
#[derive(Default)]
struct Asked(BTreeMap<String, (Vec<usize>, Init)>);

impl Source for Asked {
    fn tensor(&mut self, name: &str, shape: Shape, init: Init) -> Tensor {
        self.0.insert(name.to_owned(), (shape.dims().to_vec(), init));
        Tensor::zeros([0], DType::F32)
    }

    fn shape_of(&self, _: &str) -> Option<Shape> {
        None
    }
}

fn asked(config: &Config) -> BTreeMap<String, (Vec<usize>, Init)> {
    let mut source = Asked::default();
    Resampler::new(&mut Scope::new(&mut source, "resampler"), config, 1024, 257).unwrap();
    source.0
}

fn elements(asked: &BTreeMap<String, (Vec<usize>, Init)>) -> usize {
    asked.values().map(|(shape, _)| shape.iter().product::<usize>()).sum()
}

/// The published sizes for a tower of width 1024, and how their authors initialise them.
#[test]
fn published_resamplers_have_their_parameters() {
    let monkey = asked(&Config::Monkey(MonkeyConfig::default()));
    assert_eq!(elements(&monkey), 4_465_664);
    let normal = Init::Normal(0.02);
    assert_eq!(monkey["resampler.query"], (vec![257, 1024], normal));
    assert_eq!(monkey["resampler.attn.out_proj.weight"], (vec![1024, 1024], normal));
    assert_eq!(monkey["resampler.attn.k_proj.bias"], (vec![1024], Init::Zeros));
    let Init::Uniform(bound) = monkey["resampler.attn.q_proj.weight"].1 else { panic!("uniform") };
    assert!((bound - (1.5f32 / 1024.0).sqrt()).abs() < 1e-7);
    assert_eq!(monkey.len(), 1 + 2 * 2 + 4 * 2);
    let plain = asked(&Config::Monkey(MonkeyConfig { bias: false, ..MonkeyConfig::default() }));
    assert_eq!(elements(&monkey) - elements(&plain), 4 * 1024);

    let perceiver = asked(&Config::Perceiver(PerceiverConfig::default()));
    assert_eq!(elements(&perceiver), 63_216_640);
    assert_eq!(perceiver["resampler.latents"], (vec![257, 1024], Init::Normal(1.0)));
    let inner = Init::Uniform(512f32.sqrt().recip());
    assert_eq!(perceiver["resampler.layers.5.0.to_out.weight"], (vec![1024, 512], inner));
    assert_eq!(perceiver["resampler.layers.0.1.3.weight"].0, [1024, 4096]);
    assert_eq!(perceiver.len(), 1 + 6 * (2 * 3 + 5) + 2);
    let biased = asked(&Config::Perceiver(PerceiverConfig { bias: true, ..PerceiverConfig::default() }));
    assert_eq!(biased["resampler.layers.0.0.to_out.bias"], (vec![1024], inner));
    assert_eq!(elements(&biased) - elements(&perceiver), 6 * (512 + 1024 + 1024 + 4096 + 1024));
}

#[test]
fn inconsistent_batches_are_errors() {
    let monkey = Config::Monkey(MonkeyConfig { queries: 5, heads: 2, bias: true });
    let sizes = PerceiverConfig { queries: 5, depth: 1, heads: 1, head_dim: 8, ff_mult: 1, bias: false };
    let (cx, tokens) = (Cx::cpu(), 10);
    let x = Tensor::zeros([2 * tokens, 16], DType::F32);
    let mut both = [monkey, Config::Perceiver(sizes)].map(|config| {
        Resampler::new(&mut Scope::new(&mut RandomInit::new(1), ""), &config, 16, tokens).unwrap()
    });
    for resampler in &both {
        for lengths in [&[][..], &[tokens], &[tokens, 0, tokens], &[3 * tokens], &[tokens, usize::MAX]] {
            let error = resampler.forward(&cx, &x, lengths).unwrap_err().to_string();
            assert!(error.contains("resampler: rows of"), "{error}");
        }
        let narrow = Tensor::zeros([2 * tokens, 8], DType::F32);
        assert!(resampler.forward(&cx, &narrow, &[2 * tokens]).is_err());
    }
    let part = both[0].forward(&cx, &x, &[7, 13]).unwrap_err().to_string();
    assert!(part.contains("rows of an image is 7, expected a positive multiple of 10"), "{part}");
    both[1].forward(&cx, &x, &[7, 13]).unwrap();

    let mut grads = Grads::new(ParamTable::assign(both[0].params_mut(), |_| true).unwrap());
    let (y, saved) = both[1].forward(&cx, &x, &[2 * tokens]).unwrap();
    let error = both[0].backward(&cx, &saved, &y, &mut grads).unwrap_err().to_string();
    assert!(error.contains("saved values is perceiver, expected monkey"), "{error}");
}
