//! A run that starts from the model of another run, at another level or with cross-attention before other layers.

mod common;

use common::{Bench, run};
use pheye_train::{Config, Start};

fn set(config: &mut Config, keys: &str) {
    let table: toml::Table = keys.parse().unwrap();
    config.model.config.extend(table);
}

#[test]
fn from_level_1_to_level_2_and_from_one_interval_to_another() {
    let bench = Bench::new(4);
    bench.backbones();
    let start = |out: &str| bench.config("pheye", out, "", "steps = 2\nbatch = 2\nlora_dropout = 0.0");
    let mut first = start("first");
    set(&mut first, "connector = { level = 1, cross_interval = 1 }");
    run(&first, Start::Over, |_| {}).unwrap();

    let from = |init: &str, out: &str, keys: &str| {
        let mut next = start(out);
        next.model = pheye_train::ModelConfig {
            init: Some(init.into()),
            tokenizer: next.model.tokenizer.clone(),
            ..Default::default()
        };
        set(&mut next, keys);
        run(&next, Start::Over, |_| {}).unwrap();
        next.network().unwrap().connector
    };
    let second = from("first", "second", "connector = { level = 2 }");
    assert_eq!((second.level, second.cross_interval), (2, 1));
    let third = from("second", "third", "connector = { level = 3, cross_interval = 1 }");
    assert_eq!(third.level, 3);
    let model = pheye_model::Config::load(&bench.path("third/model")).unwrap();
    assert_eq!(model.connector.level, 3);

    // Nothing else of the model can change, and the numbers are checked.
    let refused = |keys: &str| {
        let mut next = start("fourth");
        next.model = pheye_train::ModelConfig { init: Some("first".into()), ..Default::default() };
        set(&mut next, keys);
        next.network().unwrap_err().to_string()
    };
    let said = refused("text = { num_hidden_layers = 2 }");
    assert!(said.contains("text.num_hidden_layers") && said.contains("connector.cross_interval"), "{said}");
    assert!(refused("connector = { level = 9 }").contains("level"));
    assert!(refused("connector = { cross_interval = 0 }").contains("cross_interval"));
    assert!(refused("connector = { level = \"two\" }").contains("positive integer"));
}
