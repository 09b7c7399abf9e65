//! A small model in which every part has an effect, and batches for it.
#![allow(dead_code, reason = "each test file uses some of it")]

use pheye_model::{Batch, Config, LoraSpec, Pheye};
use pheye_tensor::{Grads, ParamTable, Tensor};
use pheye_testkit::{normal, randomize};

pub(crate) const VOCAB: usize = 23;

/// Level 2, with cross-attention before layers 1 and 3 of four.
pub(crate) fn config() -> Config {
    let mut c = Config::default();
    (c.vision.hidden_size, c.vision.intermediate_size, c.vision.num_hidden_layers) = (16, 24, 2);
    (c.vision.num_attention_heads, c.vision.image_size, c.vision.patch_size) = (2, 8, 4);
    (c.text.hidden_size, c.text.intermediate_size, c.text.num_hidden_layers) = (64, 48, 4);
    (c.text.num_attention_heads, c.text.vocab_size, c.text.max_position_embeddings) = (4, VOCAB, 32);
    (c.connector.level, c.connector.cross_interval, c.connector.reduce) = (2, 2, 2);
    (c.lora_global, c.lora_local) =
        (LoraSpec { rank: 2, alpha: Some(1.0) }, LoraSpec { rank: 3, alpha: Some(1.0) });
    c
}

/// A model with random parameters far from their initial values, so that its answers depend on image and
/// prompt.
pub(crate) fn lively(config: &Config) -> Pheye {
    let mut model = Pheye::random(config, 1).unwrap();
    randomize(model.params_mut(), 3);
    model
}

pub(crate) fn pixels(config: &Config, images: usize, seed: u64) -> Tensor {
    let (tiles, s) = (images * (1 + config.connector.local_tiles()), config.vision.image_size);
    Tensor::from_f32([tiles, 3, s, s], &normal(seed, tiles * 3 * s * s)).unwrap()
}

pub(crate) fn ids(seed: usize, len: usize, vocab: usize) -> Vec<u32> {
    (0..len).map(|i| ((seed * 31 + i * 7 + i * i * 3) % vocab) as u32).collect()
}

/// Sequences of these lengths, one about each image; the first two tokens of each are not targets.
pub(crate) fn batch(config: &Config, lengths: &[usize]) -> Batch {
    let parts: Vec<_> =
        lengths.iter().enumerate().map(|(i, &len)| ids(i + 1, len, config.text.vocab_size)).collect();
    let targets = parts.iter().flat_map(|ids| {
        let next = ids.iter().skip(1).map(|&id| i64::from(id)).chain([-100]);
        next.enumerate().map(|(i, t)| if i < 2 { -100 } else { t })
    });
    Batch {
        pixels: pixels(config, lengths.len(), 4),
        images: lengths.len(),
        targets: targets.collect(),
        ids: parts.concat(),
        lengths: lengths.to_vec(),
        image: (0..lengths.len()).collect(),
    }
}

pub(crate) fn values(t: &Tensor) -> Vec<f32> {
    t.f32().unwrap().to_vec()
}

/// The gradient of a parameter.
pub(crate) fn of<'a>(grads: &'a Grads, name: &str) -> &'a [f32] {
    let at = grads.table.entries().iter().find(|(n, _)| n == name).unwrap().1.clone();
    &grads.flat.f32().unwrap()[at]
}

pub(crate) fn names(table: &ParamTable) -> Vec<&str> {
    table.entries().iter().map(|(n, _)| n.as_str()).collect()
}

/// The relative distance |a − b| / |b| of vectors.
pub(crate) fn relative(a: &[f32], b: &[f32]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let apart = norm(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    apart / norm(&mut b.iter().map(|&b| f64::from(b)))
}
