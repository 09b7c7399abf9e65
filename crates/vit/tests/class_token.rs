//! The class token behind `post_layernorm`, and the gradient that it gives to the last hidden state.

use pheye_ops::{Cx, RandomInit};
use pheye_tensor::{DType, Device, Scope, Tensor};
use pheye_testkit::gpu::{activation, download};
use pheye_testkit::plain::layernorm;
use pheye_testkit::{Formula, Ran, Real, gradcheck, gradients, normal, randomize, train_all};
use pheye_vit::{Config, Vit};

const D: usize = 16;
const TOKENS: usize = 5;
const TILES: usize = 3;

fn config() -> Config {
    let sizes = Config { hidden_size: D, intermediate_size: 12, num_hidden_layers: 1, ..Config::default() };
    Config { num_attention_heads: 2, image_size: 4, patch_size: 2, ..sizes }
}

fn vit() -> Vit {
    Vit::new(&mut Scope::new(&mut RandomInit::new(1), ""), &config(), &[]).unwrap()
}

struct ClassToken;

impl Formula for ClassToken {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let [weight, bias, x] = inputs else { unreachable!() };
        let first: Vec<T> = x.chunks(TOKENS * D).flat_map(|tile| &tile[..D]).copied().collect();
        layernorm(&first, weight, bias).into_iter().map(T::stored).collect()
    }
}

/// Weight and bias of `post_layernorm`, and the last hidden state.
fn inputs() -> Vec<(&'static str, Vec<f32>)> {
    let mut inputs = randomize(vit().params_mut(), 5);
    inputs.retain(|(name, _)| name.starts_with("post_layernorm."));
    inputs.push(("x", normal(6, TILES * TOKENS * D)));
    inputs
}

fn run(device: &Device, values: &[Vec<f32>], dy: &[f32]) -> Ran {
    let (cx, mut vit) = (Cx::new(device.clone()), vit());
    let norm = vit.params_mut().into_iter().filter(|p| p.name.starts_with("post_layernorm."));
    for (p, values) in norm.zip(values) {
        p.value.f32_mut().unwrap().copy_from_slice(values);
    }
    let mut grads = train_all(device, vit.params_mut());
    let x = activation(device, [TILES, TOKENS, D], &values[2]);
    let (y, saved) = vit.class_token(&cx, &x).unwrap();
    assert_eq!(y.shape().dims(), [TILES, D]);
    let dy = activation(device, [TILES, D], dy);
    let dx = vit.class_token_backward(&cx, &saved, &dy, &mut grads).unwrap();
    assert_eq!(dx.shape(), x.shape());
    let mut grads = gradients(&grads);
    grads.retain(|(name, _)| name.starts_with("post_layernorm."));
    grads.push(("x", download(&dx)));
    Ran { y: download(&y), grads }
}

#[test]
fn the_class_token_follows_its_formula() {
    gradcheck("class token", &ClassToken, &inputs(), |values, dy| run(&Device::Cpu, values, dy));
}

#[cfg(feature = "emulator")]
#[test]
fn the_class_token_follows_its_formula_on_a_gpu() {
    use pheye_testkit::gpu::round_bf16;
    use pheye_testkit::{BEFORE, Rounded, gpucheck};

    let mut inputs = inputs();
    round_bf16(&mut inputs[2].1);
    gpucheck::<Rounded<f64>>("class token", &ClassToken, &inputs, &["x"], |device, values, dy| {
        let mut ran = run(device, values, dy);
        // The check is for gradients that are added to this.
        ran.grads[..2].iter_mut().flat_map(|(_, g)| g).for_each(|g| *g += BEFORE);
        ran
    });
}

#[test]
fn rows_of_part_of_a_tile_are_an_error() {
    let x = Tensor::zeros([TOKENS + 1, D], DType::F32);
    let error = vit().class_token(&Cx::cpu(), &x).unwrap_err().to_string();
    assert!(error.contains("rows of x is 6, expected a multiple of the 5 tokens"), "{error}");
}
