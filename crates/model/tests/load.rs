//! Loading and saving model folders.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{batch, config, lively, relative, values};
use pheye_model::{CONFIG_FILE, Config, Error, Options, Pheye, WEIGHTS_FILE};
use pheye_ops::Cx;
use pheye_tensor::{DType, Tensor};
use pheye_weights::{Error as WeightsError, Fault, save_safetensors};

const CASES: [&str; 3] = ["level1", "x2-level2", "x4-level3"];
const BF16: Options = Options::FROZEN_BF16;

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(case)
}

fn logits(model: &Pheye) -> Vec<f32> {
    let (cx, batch) = (Cx::cpu(), batch(model.config(), &[7, 12]));
    let media = model.encode(&cx, &batch.pixels, batch.images).unwrap();
    values(&model.logits(&cx, &media, &batch).unwrap())
}

/// Names, types and bits of all parameters.
fn bits(model: &mut Pheye) -> Vec<(String, DType, Vec<u32>)> {
    let params = model.params_mut().into_iter();
    let wide = |t: &Tensor| values(&t.to_dtype(DType::F32).unwrap()).into_iter().map(f32::to_bits).collect();
    params.map(|p| (p.name.clone(), p.value.dtype(), wide(&p.value))).collect()
}

#[test]
fn saved_and_loaded_a_model_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("new/model");
    let mut model = lively(&config());
    model.save(&folder).unwrap();
    let mut loaded = Pheye::load(&folder, Options::default()).unwrap();
    assert_eq!(loaded.config(), model.config());
    assert!(bits(&mut loaded) == bits(&mut model));
    // The file can be replaced while the model is mapped from it.
    loaded.save(&folder).unwrap();
    assert!(bits(&mut Pheye::load(&folder, Options::default()).unwrap()) == bits(&mut model));
}

#[test]
fn released_models_keep_their_answers_in_this_projects_layout() {
    for case in CASES {
        let mut released = Pheye::load(&golden(case), Options::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        released.save(folder.path()).unwrap();
        let mut own = Pheye::load(folder.path(), Options::default()).unwrap();
        assert!(bits(&mut own) == bits(&mut released), "{case}");
        assert!(logits(&own) == logits(&released), "{case}");
        // The ranks come from the tensors and are written to the configuration.
        let rank = |model: &mut Pheye, name: &str| {
            let params = model.params_mut();
            let a = params.iter().find(|p| p.name.ends_with(&format!("fc1.lora_A.{name}.weight")));
            a.map(|a| a.shape().dims()[0])
        };
        let config = Config::load(folder.path()).unwrap();
        for (name, spec) in [("first", config.lora_global), ("second", config.lora_local)] {
            assert!(rank(&mut released, name).is_none_or(|r| r == spec.rank), "{case}: {name}");
        }
        let params = released.params_mut();
        let ours = params.iter().filter(|p| Pheye::is_pheye_param(&p.name));
        let trained: usize = ours.map(|p| p.shape().elements()).sum();
        assert_eq!(config.counts().unwrap().trained(), trained as u64, "{case}");
    }
}

#[test]
fn bf16_halves_the_frozen_bytes_and_only_rounds() {
    let folder = golden("x2-level2");
    let mut full = Pheye::load(&folder, Options::default()).unwrap();
    let mut half = Pheye::load(&folder, BF16).unwrap();
    let bytes = |model: &mut Pheye, trained| {
        let params = model.params_mut().into_iter().filter(|p| Pheye::is_pheye_param(&p.name) == trained);
        params.map(|p| p.value.bytes()).sum::<usize>()
    };
    assert_eq!(bytes(&mut half, false) * 2, bytes(&mut full, false));
    assert_eq!(bytes(&mut half, true), bytes(&mut full, true));

    // Arithmetic is in f32 in both cases, so a model with the same rounded weights in f32 gives the same
    // result.
    let own = tempfile::tempdir().unwrap();
    half.save(own.path()).unwrap();
    let mut rounded = Pheye::load(own.path(), Options::default()).unwrap();
    assert_eq!(bytes(&mut rounded, false), bytes(&mut full, false));
    let (full, half, rounded) = (logits(&full), logits(&half), logits(&rounded));
    let largest = full.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
    let apart =
        |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0.0, |m: f32, (a, b)| m.max((a - b).abs())) / largest;
    assert!(apart(&half, &rounded) < 1e-5);
    // Each weight has a random relative error of at most 2⁻⁹.
    assert!((1e-5..0.02).contains(&apart(&half, &full)), "{}", apart(&half, &full));
}

#[test]
fn everything_in_bf16_only_rounds() {
    for case in CASES {
        let mut half = Pheye::load(&golden(case), Options::BF16).unwrap();
        assert!(half.params_mut().iter().all(|p| p.value.dtype() == DType::Bf16));
        let own = tempfile::tempdir().unwrap();
        half.save(own.path()).unwrap();
        // Arithmetic is in f32 in both cases, so the same rounded weights in f32 give the same result.
        let rounded = logits(&Pheye::load(own.path(), Options::default()).unwrap());
        let largest = rounded.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
        let apart = logits(&half).iter().zip(&rounded).fold(0.0, |m: f32, (a, b)| m.max((a - b).abs()));
        assert!(apart < 1e-5 * largest, "{case}: {apart} of {largest}");
    }
}

#[test]
fn int8_only_rounds_linears() {
    for case in CASES {
        let mut int8 = Pheye::load(&golden(case), Options::INT8).unwrap();
        let mut widened = Pheye::load(&golden(case), Options::BF16).unwrap();
        for (p, wide) in int8.params_mut().into_iter().zip(widened.params_mut()) {
            let expected = if Pheye::is_linear_weight(&p.name) { DType::Int8 } else { DType::Bf16 };
            assert_eq!(p.value.dtype(), expected, "{case}: {}", p.name);
            wide.value = p.value.to_dtype(DType::F32).unwrap();
        }
        let (ours, same) = (logits(&int8), logits(&widened));
        let full = logits(&Pheye::load(&golden(case), Options::default()).unwrap());
        // The same rounded weights in f32 give the same result except for the rounding of activations to 16
        // bits: their step is 1/32767 of the largest value of a row, that of weights 1/127. The bound is four
        // times the ratio, because rows of activations are less even than rows of weights.
        let (activations, weights) = (relative(&ours, &same), relative(&same, &full));
        assert!(activations < weights / 64.0, "{case}: {activations} {weights}");
        // Each weight has a random error of at most half of 1/127 of the largest value of its row.
        assert!((1e-5..0.05).contains(&relative(&ours, &full)), "{case}: {}", relative(&ours, &full));
    }
}

#[test]
fn a_loaded_model_lies_in_its_file_and_is_copied_when_trained() {
    let folder = tempfile::tempdir().unwrap();
    lively(&config()).save(folder.path()).unwrap();
    let (mut told, mut total) = (Vec::new(), 0);
    let mut model = Pheye::load_named(folder.path(), Options::default(), &|_| None, |done, all| {
        told.push(done);
        total = all;
    })
    .unwrap();
    assert!(told.is_sorted() && told.len() > 100, "{told:?}");
    let bytes: usize = model.params_mut().iter().map(|p| p.value.bytes()).sum();
    assert_eq!((told.last().copied(), total), (Some(bytes as u64), bytes as u64));
    assert!(model.params_mut().iter().all(|p| p.value.is_shared()));
    let before = bits(&mut model);
    for p in model.params_mut() {
        p.value.f32_mut().unwrap()[0] += 1.0;
        assert!(!p.value.is_shared());
    }
    assert!(bits(&mut model) != before);
    // Neither the file nor another model loaded from it has changed.
    assert!(bits(&mut Pheye::load(folder.path(), Options::default()).unwrap()) == before);
}

#[test]
fn a_model_that_would_not_see_its_image_is_refused() {
    let mut c = config();
    (c.connector.cross_interval, c.connector.from_layer) = (3, 3);
    let said = Pheye::random(&c, 1).unwrap_err().to_string();
    assert!(said.contains("cross_interval is 3 and from_layer is 3") && said.contains("4 decoder"), "{said}");
}

/// Writes the tensors of a model whose names `choose` accepts.
fn write(path: &Path, model: &mut Pheye, extra: Option<(&str, &Tensor)>, choose: impl Fn(&str) -> bool) {
    let params = model.params_mut();
    let chosen = params.iter().filter(|p| choose(&p.name)).map(|p| (p.name.as_str(), &p.value));
    save_safetensors(path, chosen.chain(extra), &BTreeMap::new()).unwrap();
}

fn is_vision(name: &str) -> bool {
    name.starts_with("vision_encoder.") && !Pheye::is_pheye_param(name)
}

fn is_text(name: &str) -> bool {
    name.starts_with("lang_encoder.") && !Pheye::is_pheye_param(name)
}

#[test]
fn backbones_are_taken_as_they_are_and_the_rest_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let (vision, text) = (folder.path().join("vision"), folder.path().join("text"));
    let mut old = lively(&config());
    write(&vision, &mut old, None, is_vision);
    write(&text, &mut old, None, is_text);
    let load = |seed, options| {
        Pheye::from_backbones(&config(), Some(&vision), Some(&text), seed, options, |_, _| ()).unwrap()
    };
    let (one, two, half) = (
        bits(&mut load(1, Options::default())),
        bits(&mut load(2, Options::default())),
        bits(&mut load(1, BF16)),
    );
    let random = bits(&mut Pheye::random(&config(), 1).unwrap());
    let old = bits(&mut old);
    for (i, (name, dtype, value)) in one.iter().enumerate() {
        let pheyes = Pheye::is_pheye_param(name);
        assert_eq!(*dtype, DType::F32);
        assert!(*value == if pheyes { &random[i] } else { &old[i] }.2, "{name}");
        assert!(pheyes || *value == two[i].2, "{name}");
        assert_eq!(half[i].1 == DType::F32, pheyes, "{name}");
    }
    assert_ne!(one, two);
}

#[test]
fn backbones_that_do_not_fit_are_listed_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let (vision, text) = (folder.path().join("vision"), folder.path().join("text"));
    let mut old = lively(&config());
    let missing =
        |name: &str| name.contains("class_embedding") || name.contains("layers.1.mlp.fc2.base_layer.");
    for p in old.params_mut() {
        if p.name.ends_with("layers.0.mlp.fc1.base_layer.bias") {
            p.value = Tensor::zeros([5], DType::F32);
        }
    }
    let stray = Tensor::zeros([3], DType::F32);
    write(&vision, &mut old, Some(("stray", &stray)), |name| is_vision(name) && !missing(name));
    write(&text, &mut old, None, is_text);
    let error =
        Pheye::from_backbones(&config(), Some(&vision), Some(&text), 1, Options::default(), |_, _| ())
            .unwrap_err();
    let Error::Weights(WeightsError::Mismatch(mismatches)) = &error else { panic!("{error}") };
    assert_eq!(mismatches.path, vision);
    let count = |choose: fn(&Fault) -> bool| mismatches.faults.iter().filter(|f| choose(f)).count();
    assert_eq!(
        count(|f| matches!(f, Fault::Missing { tensor, .. } if tensor.contains("class_embedding"))),
        1
    );
    assert_eq!(count(|f| matches!(f, Fault::Missing { tensor, .. } if tensor.contains("fc2.base_layer"))), 2);
    assert_eq!(count(|f| matches!(f, Fault::Shape { found, .. } if *found == [5])), 1);
    assert_eq!(count(|f| matches!(f, Fault::Unused { tensor } if tensor == "stray")), 1);
    assert_eq!(mismatches.faults.len(), 5, "{error}");
}

#[test]
fn folders_that_hold_no_model_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let fault = || Pheye::load(path, Options::default()).unwrap_err().to_string();
    assert!(fault().contains("holds no model"), "{}", fault());
    let write = |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
    write("config.json", r#"{"encoder": "enc", "decoder": "microsoft/phi-1_5"}"#);
    assert!(fault().contains("`encoder` is `enc`"), "{}", fault());
    write("config.json", r#"{"encoder": "apple/DFN5B-CLIP-ViT-H-14"}"#);
    assert!(fault().contains("`decoder` is missing"), "{}", fault());
    write(CONFIG_FILE, r#"{"text": {"layers": 3}}"#);
    assert!(fault().contains(CONFIG_FILE) && fault().contains("layers"), "{}", fault());
    write(CONFIG_FILE, "{");
    assert!(fault().contains(CONFIG_FILE), "{}", fault());
    write(CONFIG_FILE, &serde_json::to_string(&config()).unwrap());
    assert!(fault().contains(WEIGHTS_FILE), "{}", fault());
    lively(&config()).save(path).unwrap();
    let mut other = config();
    other.text.num_hidden_layers += 1;
    write(CONFIG_FILE, &serde_json::to_string(&other).unwrap());
    assert!(fault().contains("14 mismatches"), "{}", fault());
}
