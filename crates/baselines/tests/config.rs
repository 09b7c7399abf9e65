//! The ten presets and the rules of a configuration.

mod common;

use common::{every_kind, small};
use pheye_baselines::{Config, PRESETS, System};

/// The trained parameters of the table of published systems, counted from the modules themselves.
#[test]
fn presets_train_the_published_number_of_parameters() {
    let counted: [(&str, u64); 10] = [
        ("fromage", 590_592),
        ("fromage-trained-vit", 88_046_592),
        ("llava", 590_592),
        ("llava-trained-vit", 88_045_056),
        ("smallcap", 28_366_848),
        ("smallcap-trained-vit", 115_821_312),
        ("none-224", 241_069_920),
        ("monkey-448", 249_092_544),
        ("perceiver-448", 307_843_520),
        ("none-448", 244_626_880),
    ];
    for (preset, (name, trained)) in PRESETS.iter().zip(counted) {
        assert_eq!(preset.name, name);
        let config = Config::preset(name).unwrap();
        let counts = config.counts().unwrap();
        assert_eq!(counts.trained, trained, "{name}");
        assert!(counts.all() > counts.trained);
    }
    for other in ["none-224-trained-vit", "monkey", "x2-448", ""] {
        assert_eq!(Config::preset(other), None, "{other}");
    }
}

/// Where the paper's number is not the count rounded to its digits, the preset says why.
#[test]
fn differences_from_the_paper_have_a_reason() {
    for preset in PRESETS {
        let trained = Config::preset(preset.name).unwrap().counts().unwrap().trained as f64;
        let (number, unit) = preset.paper.split_at(preset.paper.len() - 1);
        let unit = if unit == "M" { 1e6 } else { 1e3 };
        let rounds = (trained / unit).round() == number.parse::<f64>().unwrap();
        assert_eq!(preset.why.is_empty(), rounds, "{}", preset.name);
    }
}

#[test]
fn invalid_options_are_named() {
    let fault = |config: Config| config.validate().unwrap_err().to_string();
    let llava = |change: &dyn Fn(&mut Config)| fault(small(System::Llava, change));
    assert!(llava(&|c| c.level = 2).contains("level is 2, but only `smallcap`"));
    assert!(llava(&|c| c.lora_rank = 1).contains("lora_rank is 1, but only `smallcap`"));
    let resampler = Some(pheye_resample::Config::Monkey(Default::default()));
    assert!(llava(&|c| c.resampler = resampler.clone()).contains("resampler.queries is 257"));
    assert!(llava(&|c| c.text.n_positions = 5).contains("n_positions is 5, but an image alone takes 5 rows"));
    let smallcap = |change: &dyn Fn(&mut Config)| fault(small(System::Smallcap, change));
    assert!(smallcap(&|c| c.level = 5).contains("level is 5, but it must be 1 to 4"));
    assert!(smallcap(&|c| c.lora_alpha = f32::NAN).contains("lora_alpha is NaN"));
    assert!(smallcap(&|c| c.lora_rank = 1 << 20).contains("lora_rank is 1048576"));
    assert!(smallcap(&|c| c.resampler = resampler.clone()).contains("resampler config: hidden_size is 16"));
    assert!(smallcap(&|c| c.vision.patch_size = 3).contains("vision config: image_size is 8"));
    assert!(smallcap(&|c| c.text.n_head = 5).contains("GPT-2 config: n_embd is 24"));
}

#[test]
fn rows_of_an_image_are_those_that_the_language_model_reads() {
    let rows = |name: &str| {
        let config = &every_kind().into_iter().find(|(kind, _)| *kind == name).unwrap().1;
        (config.media_tokens(), config.prefix(), config.context())
    };
    assert_eq!(rows("fromage"), (1, 1, 23));
    assert_eq!(rows("llava, trained tower"), (5, 5, 19));
    assert_eq!(rows("smallcap"), (5, 0, 24));
    assert_eq!(rows("none, tiles"), (25, 0, 24));
    assert_eq!(rows("monkey"), (5, 0, 24));
    assert_eq!(rows("perceiver"), (3, 0, 24));
}
