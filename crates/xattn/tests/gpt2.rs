//! Cross-attention of GPT-2, as SmallCap trains it, against plain PyTorch (`data/make.py`): the output, and the gradients
//! of text, media and every parameter, for three sequences whose images have different numbers of tokens.

use pheye_ops::Cx;
use pheye_ops::attention::Span;
use pheye_tensor::{DType, Device, Init, Scope, Shape, Source, Tensor};
use pheye_testkit::gpu::{activation, download};
use pheye_testkit::{Golden, Rule, gradients, train_all};
use pheye_xattn::{Attention, AttentionConfig};

const WIDTH: usize = 24;
const HEADS: usize = 3;

fn golden() -> Golden {
    Golden::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/gpt2.safetensors"))
}

/// The output and the gradients on a device, by the names in the golden data.
fn run(device: &Device, golden: &Golden) -> Vec<(String, Vec<f32>)> {
    let (cx, mut source, config) = (Cx::new(device.clone()), golden, AttentionConfig::gpt2(WIDTH, HEADS, 2));
    let mut cross = Attention::new(&mut Scope::new(&mut source, "h.0"), &config);
    let mut grads = train_all(device, cross.params_mut());
    let [x, media, dy] =
        ["x", "media", "dy"].map(|n| activation(device, [golden.f32(n).len() / WIDTH, WIDTH], golden.f32(n)));
    let spans = [(0..4, 0..5), (4..5, 5..7), (5..8, 7..14)].map(|(q, k)| Span { q, k });
    let (kv, kv_saved) = cross.kv(&cx, &media).unwrap();
    let (y, saved) = cross.forward(&cx, &x, &kv, &spans).unwrap();
    let (dx, dkv) = cross.backward(&cx, &saved, dy, &spans, &mut grads).unwrap();
    let dmedia = cross.kv_backward(&cx, &kv_saved, &dkv, &mut grads).unwrap();
    let mut all = vec![("y".to_owned(), download(&y))];
    all.extend([("grad.x".to_owned(), download(&dx)), ("grad.media".to_owned(), download(&dmedia))]);
    all.extend(gradients(&grads).into_iter().map(|(name, g)| (format!("grad.{name}"), g)));
    all
}

/// Compares with the golden data, by the error of plain PyTorch in `precision`.
fn check(golden: &Golden, precision: &str, results: &[(String, Vec<f32>)]) {
    let rule = |name: &str| if name == "y" { Rule::OUTPUT } else { Rule::GRADIENT };
    let reports = results.iter().map(|(name, out)| golden.compare(rule(name), name, precision, out));
    let faults: Vec<String> = reports.filter(|r| !r.ok()).map(|r| r.to_string()).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn cross_attention_is_that_of_pytorch() {
    let golden = golden();
    let results = run(&Device::Cpu, &golden);
    assert_eq!(results.len(), 1 + 2 + 8);
    check(&golden, "f32", &results);
}

#[cfg(feature = "emulator")]
#[test]
fn cross_attention_is_that_of_pytorch_on_a_gpu() {
    let golden = golden();
    let [first, others @ ..] = pheye_testkit::gpu::orders();
    let results = run(&first, &golden);
    check(&golden, "bf16", &results);
    for device in others {
        assert!(run(&device, &golden) == results, "other bits on {device}");
    }
}

/// Records what is asked for, and gives nothing.
#[derive(Default)]
struct Asked(Vec<(String, Vec<usize>, Init)>);

impl Source for Asked {
    fn tensor(&mut self, name: &str, shape: Shape, init: Init) -> Tensor {
        self.0.push((name.to_owned(), shape.dims().to_vec(), init));
        Tensor::zeros([0], DType::F32)
    }

    fn shape_of(&self, _: &str) -> Option<Shape> {
        None
    }
}

/// 28,366,848 parameters for the 12 layers of GPT-2 base.
#[test]
fn cross_attention_of_gpt2_has_its_names_and_initial_weights() {
    let mut source = Asked::default();
    Attention::new(&mut Scope::new(&mut source, "h.3"), &AttentionConfig::gpt2(768, 12, 12));
    let (std, out) = (Init::Normal(0.02), Init::Normal(0.02 / 24f32.sqrt()));
    let expected = [
        ("ln_cross_attn.weight", vec![768], Init::Ones),
        ("ln_cross_attn.bias", vec![768], Init::Zeros),
        ("crossattention.q_attn.weight", vec![768, 768], std),
        ("crossattention.q_attn.bias", vec![768], Init::Zeros),
        ("crossattention.c_attn.weight", vec![1536, 768], std),
        ("crossattention.c_attn.bias", vec![1536], Init::Zeros),
        ("crossattention.c_proj.weight", vec![768, 768], out),
        ("crossattention.c_proj.bias", vec![768], Init::Zeros),
    ];
    assert_eq!(source.0, expected.map(|(name, shape, init)| (format!("h.3.{name}"), shape, init)));
    let elements: usize = source.0.iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum();
    assert_eq!(12 * elements, 28_366_848);
}
