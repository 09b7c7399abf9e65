//! Configurations: errors for invalid ones, and the sizes of presets.

use pheye_model::{Config, Counts, Error, LoraSpec, PRESETS, Pheye};

/// A part of a message, and the change that causes the message.
type Fault = (&'static str, fn(&mut Config));

#[test]
fn impossible_configurations_name_their_option() {
    let faults: [Fault; 8] = [
        ("vision config: patch_size", |c| c.vision.patch_size = 0),
        ("text config: hidden_size", |c| c.text.hidden_size = 0),
        ("text config: vocab_size", |c| c.text.vocab_size = 0),
        ("connector config: level", |c| c.connector.level = 7),
        ("connector config: reduce", |c| c.connector.reduce = 3),
        ("lora_global.rank", |c| c.lora_global.rank = 0),
        ("lora_local.rank", |c| c.lora_local.rank = usize::MAX),
        ("lora_local.alpha", |c| c.lora_local.alpha = Some(f32::NAN)),
    ];
    for (option, spoil) in faults {
        let mut config = Config::preset("nano").unwrap();
        spoil(&mut config);
        let errors = [Pheye::random(&config, 1).unwrap_err(), config.counts().unwrap_err()];
        assert!(errors.iter().all(|e| e.to_string().contains(option)), "{errors:?}");
    }
    // Two widths of zero must not cause a division by zero.
    let mut config = Config::default();
    (config.text.hidden_size, config.vision.hidden_size) = (0, 0);
    assert!(matches!(Pheye::random(&config, 1), Err(Error::Vision(_))));
}

#[test]
fn unknown_keys_are_refused() {
    let error = serde_json::from_str::<Config>(r#"{"vision": {"hidden_sise": 64}}"#).unwrap_err();
    assert!(error.to_string().contains("hidden_sise"));
    assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
}

#[test]
fn presets_have_the_released_sizes() {
    for name in PRESETS {
        let config = Config::preset(name).unwrap();
        let Counts { vision, text, .. } = config.counts().unwrap();
        if name != "nano" {
            // ViT-H-14 and Phi-1.5.
            assert_eq!((vision, text), (630_766_080, 1_418_270_720), "{name}");
        }
    }
    for (name, trained) in [("x4-672", 295_136_192), ("x2-672", 578_411_456), ("x4-448", 295_136_192)] {
        let counts = Config::preset(name).unwrap().counts().unwrap();
        assert_eq!(counts.trained(), trained, "{name}");
        assert_eq!(counts.trained(), counts.lora + counts.connector + counts.cross_attention);
    }
    let level1 = Config::preset("x2-224").unwrap();
    assert_eq!(level1.adapters().iter().flatten().count(), 1);
    let tokens = ["x2-224", "x2-448", "x2-672"].map(|name| Config::preset(name).unwrap().media_tokens());
    assert_eq!(tokens, [257, 1285, 2570]);
    for name in ["x3-224", "x4-225", "x4", "", "4-224", "nano "] {
        assert_eq!(Config::preset(name), None, "{name}");
    }
}

#[test]
fn counts_are_those_of_the_model() {
    let mut config = Config::preset("nano").unwrap();
    config.lora_local = LoraSpec { rank: 5, alpha: None };
    let (counts, mut model) = (config.counts().unwrap(), Pheye::random(&config, 1).unwrap());
    let params = model.params_mut();
    let elements = |trained| {
        let these = params.iter().filter(|p| Pheye::is_pheye_param(&p.name) == trained);
        these.map(|p| p.shape().elements() as u64).sum::<u64>()
    };
    assert_eq!((elements(true), elements(false)), (counts.trained(), counts.frozen()));
}

#[test]
fn a_released_folder_says_its_ranks_by_its_tensors() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/x2-level2");
    let config = Config::load(&folder).unwrap();
    assert_eq!((config.lora_global.rank, config.lora_local.rank), (8, 16));
}
