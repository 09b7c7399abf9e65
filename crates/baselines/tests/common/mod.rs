//! Helpers shared by the tests: small systems of every kind, and batches for them.
#![allow(dead_code)] // each test file uses some of it

use pheye_baselines::{Baseline, Config, System};
use pheye_model::Batch;
use pheye_resample::{MonkeyConfig, PerceiverConfig};
use pheye_tensor::Tensor;

/// A system with small backbones, of the kind that `change` makes of it.
pub(crate) fn small(system: System, change: impl FnOnce(&mut Config)) -> Config {
    let vision = pheye_vit::Config {
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        image_size: 8,
        patch_size: 4,
        ..Default::default()
    };
    let text = pheye_gpt2::Config {
        vocab_size: 31,
        n_positions: 24,
        n_embd: 24,
        n_layer: 3,
        n_head: 3,
        ..Default::default()
    };
    let mut config = Config { vision, text, ..Config::new(system) };
    change(&mut config);
    config
}

/// One small system of each kind, by name.
pub(crate) fn every_kind() -> Vec<(&'static str, Config)> {
    let monkey = MonkeyConfig { queries: 5, heads: 2, bias: true };
    let perceiver = PerceiverConfig { queries: 3, depth: 2, heads: 2, head_dim: 8, ..Default::default() };
    let lora = |c: &mut Config| (c.level, c.lora_rank) = (2, 4);
    vec![
        ("fromage", small(System::Fromage, |_| ())),
        ("llava, trained tower", small(System::Llava, |c| c.train_vit = true)),
        ("smallcap", small(System::Smallcap, |c| c.bias = false)),
        ("none, tiles", small(System::Smallcap, lora)),
        (
            "monkey",
            small(System::Smallcap, |c| {
                lora(c);
                c.resampler = Some(pheye_resample::Config::Monkey(monkey));
            }),
        ),
        (
            "perceiver",
            small(System::Smallcap, |c| {
                lora(c);
                c.resampler = Some(pheye_resample::Config::Perceiver(perceiver));
            }),
        ),
    ]
}

/// A system with random parameters. All of them, also those that start at zero, are moved so that every path matters.
pub(crate) fn random(config: &Config, seed: u64) -> Baseline {
    let mut model = Baseline::random(config, seed).unwrap();
    for (i, param) in model.params_mut().into_iter().enumerate() {
        let values = noise(param.shape().elements(), seed + 1000 + i as u64);
        let moved = param.value.f32_mut().unwrap();
        moved.iter_mut().zip(values).for_each(|(value, noise)| *value += 0.3 * noise);
    }
    model
}

/// Numbers from -0.5 to 0.5.
pub(crate) fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

/// Pixels of `images` images of `config`.
pub(crate) fn pixels(config: &Config, images: usize, seed: u64) -> Tensor {
    let (tiles, side) = (images * (1 + config.local_tiles()), config.vision.image_size);
    let values = noise(tiles * 3 * side * side, seed);
    Tensor::from_f32([tiles, 3, side, side], &values).unwrap()
}

/// Texts about images: `texts[i]` is the image and the length of text i. The first token of each has no target before
/// it, and the last none after it.
pub(crate) fn batch(config: &Config, images: usize, texts: &[(usize, usize)]) -> Batch {
    let mut batch = Batch {
        pixels: pixels(config, images, 7),
        images,
        ids: Vec::new(),
        targets: Vec::new(),
        lengths: Vec::new(),
        image: Vec::new(),
    };
    for (number, &(image, length)) in texts.iter().enumerate() {
        let ids: Vec<u32> =
            (0..length).map(|i| ((3 + 7 * number + 5 * i * i) % config.text.vocab_size) as u32).collect();
        batch.targets.extend(ids.iter().skip(1).map(|&id| i64::from(id)).chain([-100]));
        batch.ids.extend(ids);
        batch.lengths.push(length);
        batch.image.push(image);
    }
    batch
}
