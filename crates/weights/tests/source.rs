//! A network that loads its parameters from a checkpoint.

mod common;

use std::collections::BTreeMap;

use common::{data, golden};
use pheye_tensor::{DType, Init, Scope, Shape, Source, Tensor};
use pheye_weights::{Checkpoint, CheckpointSource, Error, Fault, NameMap, save_safetensors};

/// A source of ones, which records the requested names.
struct Ones(Vec<String>);

impl Source for Ones {
    fn tensor(&mut self, name: &str, shape: Shape, _: Init) -> Tensor {
        self.0.push(name.to_owned());
        Tensor::from_f32(shape, &vec![1.0; shape.elements()]).unwrap()
    }

    fn shape_of(&self, _: &str) -> Option<Shape> {
        Some(Shape::from([8]))
    }
}

fn f32_only(_: &str) -> DType {
    DType::F32
}

#[test]
fn a_released_checkpoint_fits_when_all_but_the_copies_is_used() {
    let c = Checkpoint::open(golden("level1/checkpoint.pt")).unwrap();
    let dtype = |name: &str| if name.contains("lora_") { DType::F32 } else { DType::Bf16 };
    let copies =
        |name: &str| name.starts_with("lang_encoder.model.layers.") || name.ends_with(".position_ids");
    let mut source = CheckpointSource::new(&c, dtype).allow_unused(copies);
    for name in c.names().filter(|name| !copies(name)) {
        let shape = source.shape_of(name).unwrap();
        let tensor = source.tensor(name, shape, Init::Zeros);
        assert_eq!((tensor.shape(), tensor.dtype()), (c.info(name).unwrap().0, dtype(name)));
    }
    source.finish().unwrap();
}

#[test]
fn all_faults_are_told_at_once() {
    let c = Checkpoint::open(data("kinds.pt")).unwrap();
    let mut source = CheckpointSource::new(&c, f32_only).allow_unused(|n| n != "f16" && n != "u8");
    assert_eq!(source.tensor("parameter", Shape::from([2]), Init::Ones).f32().unwrap(), [4.0, 5.0]);
    // After a fault nothing is allocated, whatever shape is requested.
    let huge = source.tensor("absent", Shape::from([1 << 40, 1 << 20]), Init::Ones);
    assert_eq!(huge.shape().elements(), 0);
    source.tensor("f32", Shape::from([3, 2, 4]), Init::Ones);
    source.tensor("five", Shape::from([2]), Init::Ones);
    source.tensor("i64", Shape::from([2]), Init::Ones);
    assert_eq!(source.tensor("parameter", Shape::from([2]), Init::Ones).shape().elements(), 0);
    let Err(Error::Mismatch(m)) = source.finish() else { panic!("it fits") };
    let listed: Vec<&str> = m
        .faults
        .iter()
        .map(|f| match f {
            Fault::Missing { tensor, .. } if tensor == "absent" => "missing",
            Fault::Shape { tensor, found, .. } if tensor == "f32" && *found == [2, 3, 4] => "shape",
            Fault::Shape { tensor, found, .. } if tensor == "five" && found.len() == 5 => "rank",
            Fault::DType { tensor, .. } if tensor == "i64" => "dtype",
            Fault::Unused { tensor } if tensor == "f16" || tensor == "u8" => "unused",
            _ => "other",
        })
        .collect();
    assert_eq!(listed, ["missing", "shape", "rank", "dtype", "unused", "unused"]);
    let said = m.to_string();
    assert!(
        said.contains(
            "kinds.pt: does not fit the network, 6 mismatches:\n  missing `absent` [1099511627776, 1048576]\n"
        ),
        "{said}"
    );
    assert!(said.contains("`f32` has shape [2, 3, 4], the network needs [3, 2, 4]"), "{said}");
    assert!(said.contains("unused `f16`"), "{said}");
}

/// After a fault the fallback is not called, because it would allocate a tensor of the requested shape.
#[test]
fn after_a_fault_a_fallback_is_not_asked() {
    let c = Checkpoint::open(data("kinds.pt")).unwrap();
    let mut random = Ones(Vec::new());
    let mut source = CheckpointSource::new(&c, f32_only).fallback(|n| n.contains("lora_"), &mut random);
    assert_eq!(source.tensor("lora_a", Shape::from([2]), Init::Zeros).f32().unwrap(), [1.0, 1.0]);
    source.tensor("absent", Shape::from([1 << 40]), Init::Zeros);
    assert_eq!(source.tensor("lora_b", Shape::from([1 << 40]), Init::Zeros).shape().elements(), 0);
    assert!(source.finish().is_err());
    assert_eq!(random.0, ["lora_a"]);
}

#[test]
fn a_long_list_is_cut() {
    let c = Checkpoint::open(golden("level1/checkpoint.pt")).unwrap();
    let copies = |name: &str| name.starts_with("lang_encoder.model.layers.");
    let e = CheckpointSource::new(&c, f32_only).allow_unused(copies).finish().unwrap_err().to_string();
    assert_eq!(e.lines().count(), 42);
    let unused = c.names().filter(|name| !copies(name)).count();
    assert!(e.ends_with(&format!("and {} more", unused - 40)), "{e}");
}

fn clip_names() -> NameMap {
    NameMap::default()
        .prefix("vision_encoder.vision_model.base_model.model.", "vision_model.")
        .drop(".base_layer")
}

fn phi_names() -> NameMap {
    NameMap::default()
        .prefix("lang_encoder.old_decoder_blocks.", "model.layers.")
        .prefix("lang_encoder.model.", "model.")
        .prefix("lang_encoder.lm_head.", "lm_head.")
}

#[test]
fn published_backbones_and_a_random_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let t = |v: f32| Tensor::from_f32([1], &[v]).unwrap();
    let (a, b, c, d) = (t(1.5), t(2.5), t(3.5), t(4.5));
    let clip = [
        ("vision_model.pre_layrnorm.weight", &a),
        ("vision_model.encoder.layers.0.mlp.fc1.weight", &b),
        ("vision_model.embeddings.position_ids", &d),
        ("logit_scale", &d),
    ];
    save_safetensors(path("clip"), clip, &BTreeMap::new()).unwrap();
    let phi = [("model.layers.11.mlp.fc1.bias", &c), ("model.embed_tokens.weight", &a), ("lm_head.bias", &b)];
    save_safetensors(path("phi"), phi, &BTreeMap::new()).unwrap();
    let (clip, phi) = (Checkpoint::open(path("clip")).unwrap(), Checkpoint::open(path("phi")).unwrap());

    let mut random = Ones(Vec::new());
    let new = |name: &str| name.contains("lora_") || name.contains("cross_attn");
    let mut text = CheckpointSource::new(&phi, f32_only).names(phi_names()).fallback(new, &mut random);
    let other = |name: &str| name.starts_with("lang_encoder.") || name.contains("lora_");
    let mut both = CheckpointSource::new(&clip, f32_only)
        .names(clip_names())
        .fallback(other, &mut text)
        .allow_unused(|name| name == "logit_scale")
        .allow_unused(|name| name.ends_with(".position_ids"));

    let vit = "vision_encoder.vision_model.base_model.model";
    let lora = format!("{vit}.encoder.layers.0.mlp.fc1.lora_A.first.weight");
    assert_eq!(both.shape_of(&lora), Some(Shape::from([8])), "decided by the last fallback");
    assert_eq!(both.shape_of("vision_encoder.nothing"), None);
    let mut root = Scope::new(&mut both, "");
    let mut value = |name: &str| root.param(name, [1], Init::Zeros).value.f32().unwrap()[0];
    assert_eq!(value(&format!("{vit}.pre_layrnorm.weight")), 1.5);
    assert_eq!(value(&format!("{vit}.encoder.layers.0.mlp.fc1.base_layer.weight")), 2.5);
    assert_eq!(value(&lora), 1.0);
    assert_eq!(value("lang_encoder.old_decoder_blocks.11.mlp.fc1.bias"), 3.5);
    assert_eq!(value("lang_encoder.model.embed_tokens.weight"), 1.5);
    assert_eq!(value("lang_encoder.lm_head.bias"), 2.5);
    assert_eq!(value("lang_encoder.cross_attn_layers.1.attn.to_q.weight"), 1.0);
    let absent = root.param("lang_encoder.model.final_layernorm.weight", [1], Init::Zeros);
    assert_eq!(absent.value.shape().elements(), 0);
    both.finish().unwrap();
    let missing = text.finish().unwrap_err().to_string();
    assert!(missing.contains("1 mismatch:\n  missing `model.final_layernorm.weight` [1]"), "{missing}");
    assert_eq!(random.0, [lora.as_str(), "lang_encoder.cross_attn_layers.1.attn.to_q.weight"]);
}
