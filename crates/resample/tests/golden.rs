//! Both resamplers against plain PyTorch (`data/make.py`): the output, and the gradients of the image tokens and of every
//! parameter, for three images of different lengths.

use std::path::Path;

use pheye_ops::Cx;
use pheye_resample::{Config, MonkeyConfig, PerceiverConfig, Resampler};
use pheye_tensor::{Device, Scope};
use pheye_testkit::gpu::{activation, download};
use pheye_testkit::{Golden, Rule, gradients, train_all};

const WIDTH: usize = 24;
const TOKENS: usize = 10;
const QUERIES: usize = 5;
const TILES: [usize; 3] = [TOKENS, 3 * TOKENS, 2 * TOKENS];
const PARTS: [usize; 3] = [7, 1, 12];

/// The files of `data`, each with its configuration and the lengths of its images.
fn cases() -> [(&'static str, Config, [usize; 3]); 4] {
    let monkey = |bias| Config::Monkey(MonkeyConfig { queries: QUERIES, heads: 3, bias });
    let perceiver = |depth, bias| {
        let (queries, heads, head_dim, ff_mult) = (QUERIES, 2, 8, 2);
        Config::Perceiver(PerceiverConfig { queries, depth, heads, head_dim, ff_mult, bias })
    };
    [
        ("monkey", monkey(true), TILES),
        ("monkey_without_bias", monkey(false), TILES),
        ("perceiver", perceiver(2, false), PARTS),
        ("perceiver_with_bias", perceiver(1, true), PARTS),
    ]
}

fn golden(name: &str) -> Golden {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    Golden::open(data.join(name).with_extension("safetensors"))
}

/// The output and the gradients on a device, by the names in the golden data.
fn run(device: &Device, golden: &Golden, config: &Config, lengths: &[usize]) -> Vec<(String, Vec<f32>)> {
    let (cx, mut source) = (Cx::new(device.clone()), golden);
    let mut resampler =
        Resampler::new(&mut Scope::new(&mut source, "resampler"), config, WIDTH, TOKENS).unwrap();
    let mut grads = train_all(device, resampler.params_mut());
    let x = activation(device, [lengths.iter().sum(), WIDTH], golden.f32("x"));
    let dy = activation(device, [lengths.len(), QUERIES, WIDTH], golden.f32("dy"));
    let (unmoved, _) = resampler.forward(&cx, &x, lengths).unwrap();
    resampler.move_to(device).unwrap();
    let (y, saved) = resampler.forward(&cx, &x, lengths).unwrap();
    assert_eq!(download(&y), download(&unmoved));
    assert_eq!(y.shape().dims(), [lengths.len(), QUERIES, WIDTH]);
    let dx = resampler.backward(&cx, &saved, &dy, &mut grads).unwrap();
    let mut all = vec![("y".to_owned(), download(&y)), ("grad.x".to_owned(), download(&dx))];
    all.extend(gradients(&grads).into_iter().map(|(name, g)| (format!("grad.{name}"), g)));
    all
}

/// Compares with the golden data, by the error of plain PyTorch in `precision`.
fn check(name: &str, golden: &Golden, precision: &str, results: &[(String, Vec<f32>)]) {
    let mut faults = Vec::new();
    for (tensor, out) in results {
        let rule = if tensor == "y" { Rule::OUTPUT } else { Rule::GRADIENT };
        let report = match tensor.strip_suffix("k_proj.bias") {
            // A bias of the keys shifts all scores of a query equally. Its gradient is only rounding error, and so is
            // compared by the error of the other sum over the gradients of the keys.
            Some(attn) => {
                let error = golden.f64(&format!("{attn}k_proj.weight_{precision}_error"))[0];
                rule.compare_with(tensor, out, error, &golden.f64(&format!("{tensor}_f64")))
            }
            None => golden.compare(rule, tensor, precision, out),
        };
        faults.extend((!report.ok()).then(|| report.to_string()));
    }
    assert!(faults.is_empty(), "{name}:\n{}", faults.join("\n"));
}

#[test]
fn resamplers_are_those_of_pytorch() {
    for (name, config, lengths) in cases() {
        let golden = golden(name);
        let results = run(&Device::Cpu, &golden, &config, &lengths);
        check(name, &golden, "f32", &results);
        let known = golden.names().filter(|n| n.starts_with("grad.") && n.ends_with("_f64")).count();
        assert_eq!(results.len(), 1 + known, "{name}: each gradient of the golden data");
    }
}

#[cfg(feature = "emulator")]
#[test]
fn resamplers_are_those_of_pytorch_on_a_gpu() {
    for (name, config, lengths) in cases() {
        let golden = golden(name);
        let [first, others @ ..] = pheye_testkit::gpu::orders();
        let results = run(&first, &golden, &config, &lengths);
        check(name, &golden, "bf16", &results);
        for device in others {
            assert!(run(&device, &golden, &config, &lengths) == results, "{name} differs on {device}");
        }
    }
}
