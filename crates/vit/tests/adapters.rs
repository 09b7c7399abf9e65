//! LoRA adapters: the effect of a new one, where ranks come from, and invalid shapes.

use pheye_ops::lora::{Route, RowRange};
use pheye_ops::{Cx, RandomInit};
use pheye_tensor::{DType, Init, Scope, Shape, Source, Tensor};
use pheye_testkit::normal;
use pheye_vit::{AdapterSpec, Config, Vit};

fn small() -> Config {
    let sizes = Config { hidden_size: 16, intermediate_size: 12, num_hidden_layers: 1, ..Config::default() };
    Config { num_attention_heads: 2, image_size: 8, patch_size: 4, ..sizes }
}

fn spec(name: &str) -> Option<AdapterSpec> {
    Some(AdapterSpec { name: name.to_owned(), rank: 2, alpha: None })
}

fn features(vit: &Vit, adapter: Option<usize>) -> Vec<f32> {
    let pixels = Tensor::from_f32([1, 3, 8, 8], &normal(3, 3 * 64)).unwrap();
    let route = Route { ranges: vec![RowRange { rows: 0..1, adapter }], dropout: None };
    vit.infer(&Cx::cpu(), &pixels, &route).unwrap().f32().unwrap().to_vec()
}

#[test]
fn new_adapters_change_nothing_and_trained_ones_only_their_rows() {
    let adapters = [spec("first"), None, spec("second")];
    let mut vit = Vit::new(&mut Scope::new(&mut RandomInit::new(1), ""), &small(), &adapters).unwrap();
    let bare = features(&vit, None);
    for adapter in 0..3 {
        assert_eq!(features(&vit, Some(adapter)), bare);
    }
    for p in vit.params_mut() {
        if p.name.ends_with("lora_B.second.weight") {
            p.value.f32_mut().unwrap().fill(0.1);
        }
    }
    assert_eq!(features(&vit, Some(0)), bare);
    assert_eq!(features(&vit, Some(1)), bare);
    assert_ne!(features(&vit, Some(2)), bare);
}

/// A source that determines the shape of every A.
struct Stored(Shape);

impl Source for Stored {
    fn tensor(&mut self, _: &str, shape: Shape, _: Init) -> Tensor {
        Tensor::zeros(shape, DType::F32)
    }

    fn shape_of(&self, name: &str) -> Option<Shape> {
        name.contains("lora_A").then_some(self.0)
    }
}

#[test]
fn stored_ranks_overrule_the_spec() {
    let rank = |stored| {
        let mut source = Stored(stored);
        let mut vit = Vit::new(&mut Scope::new(&mut source, ""), &small(), &[spec("first")]).unwrap();
        let b = vit.params_mut().into_iter().find(|p| p.name.ends_with("mlp.fc1.lora_B.first.weight"));
        b.unwrap().shape().dims()[1]
    };
    assert_eq!(rank([5, 16].into()), 5);
    // A stored scalar has no LoRA rank; the source will report its shape.
    assert_eq!(rank([].into()), 2);
}
