//! A model at another resolution level, with patches of another size, or with cross-attention before other layers.

use std::collections::HashMap;

use pheye_tensor::Tensor;

use crate::lora::LoraSet;
use crate::pheye::CONNECTOR_PREFIX;
use crate::{Config, Pheye, Result};

/// What may differ in a model that starts from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changes {
    /// 1 for the global image alone, L for L×L tiles as well.
    pub level: usize,
    /// Cross-attention stands before every `cross_interval`th decoder layer.
    pub cross_interval: usize,
    /// Side of a patch in pixels. The number of patches stays, so that the side of a view changes with it.
    pub patch_size: usize,
}

impl Changes {
    /// Those that lead to `config`.
    pub fn to(config: &Config) -> Changes {
        let connector = &config.connector;
        let patch_size = config.vision.patch_size;
        Changes { level: connector.level, cross_interval: connector.cross_interval, patch_size }
    }
}

impl Pheye {
    /// This model with other images, patches or cross-attention. All parameters that remain are kept. What the
    /// new tiles need and the model lacks starts as what it knows best: the LoRA set and the norm of tiles as those of
    /// the global image, and the embedding of each new tile as the mean of those in use, plus N(0, 0.02²) from `seed`
    /// to tell tiles apart. New cross-attention blocks start at random. The kernel of patches of another size computes
    /// what the old one does on each patch resized to the old size by averaging areas. A sequence of lessons can so begin
    /// with small images.
    ///
    /// # Errors
    /// When a change is out of range.
    pub fn adapted(mut self, to: Changes, seed: u64) -> Result<Pheye> {
        let Changes { level, cross_interval, patch_size } = to;
        let tiles_before = self.config.connector.local_tiles();
        let grows = level > self.config.connector.level;
        let mut config: Config = self.config.clone();
        (config.connector.level, config.connector.cross_interval) = (level, cross_interval);
        let patch_before = config.vision.patch_size;
        config.vision.image_size = (config.vision.image_size / patch_before).saturating_mul(patch_size);
        config.vision.patch_size = patch_size;
        if tiles_before == 0 {
            config.lora_local = config.lora_global;
        }
        let mut model = Pheye::random(&config, seed)?;
        let remarks = std::mem::take(&mut self.remarks);
        let known: HashMap<String, Tensor> =
            self.params_mut().into_iter().map(|p| (p.name.clone(), p.value.clone())).collect();
        let norm = |n: usize| format!("{CONNECTOR_PREFIX}.norm_lvl_{n}.");
        for param in model.params_mut() {
            let global = match LoraSet::of(&param.name) {
                Some(LoraSet::Local) if tiles_before == 0 => param.name.replace(
                    &format!(".{}.", LoraSet::Local.adapter()),
                    &format!(".{}.", LoraSet::Global.adapter()),
                ),
                _ if tiles_before == 0 && param.name.starts_with(&norm(2)) => {
                    param.name.replace(&norm(2), &norm(1))
                }
                _ => param.name.clone(),
            };
            let Some(value) = known.get(&global) else { continue };
            if patch_before != patch_size
                && value.shape().dims().get(1..) == Some(&[3, patch_before, patch_before])
            {
                param.value = resized(value, patch_size)?;
            } else if value.shape() != param.value.shape() {
                continue;
            } else if grows && param.name == format!("{CONNECTOR_PREFIX}.connector.embedding.weight") {
                param.value = embedding(value, &param.value, 1 + tiles_before)?;
            } else {
                // A copy, because two parameters may start from one.
                param.value =
                    Tensor::from_f32(value.shape(), &value.to_vec_f32()?)?.to_dtype(value.dtype())?;
            }
        }
        model.remarks = remarks;
        Ok(model)
    }
}

/// The embedding of tiles [21, d]: the first `used` rows of `old`, and for the others the mean of those of tiles, or of
/// the global image if there are none, plus the row of `noise`.
fn embedding(old: &Tensor, noise: &Tensor, used: usize) -> Result<Tensor> {
    let d = old.shape().cols();
    let (mut rows, noise) = (old.to_vec_f32()?, noise.to_vec_f32()?);
    let from = if used > 1 { 1..used } else { 0..1 };
    let mean: Vec<f32> =
        (0..d).map(|c| from.clone().map(|row| rows[row * d + c]).sum::<f32>() / from.len() as f32).collect();
    for i in used * d..rows.len() {
        rows[i] = mean[i % d] + noise[i];
    }
    Ok(Tensor::from_f32(old.shape(), &rows)?)
}

/// The kernels [n, c, p, p] for patches of side `q`, which compute what `old` does on each patch resized to p × p by
/// averaging areas.
fn resized(old: &Tensor, q: usize) -> Result<Tensor> {
    let [n, c, p, _] = *old.shape().dims() else { return Ok(old.clone()) };
    // Row i: the share of each of the q pixels in pixel i of p, which covers q/p of them.
    let width = q as f64 / p as f64;
    let share = |i: usize, y: usize| {
        let (from, to) = (i as f64 * width, (i + 1) as f64 * width);
        (to.min((y + 1) as f64) - from.max(y as f64)).max(0.0) / width
    };
    let values = old.to_vec_f32()?;
    let mut kernels = vec![0.0; n * c * q * q];
    for (old, new) in values.chunks_exact(p * p).zip(kernels.chunks_exact_mut(q * q)) {
        for (at, value) in new.iter_mut().enumerate() {
            let (y, x) = (at / q, at % q);
            let sum: f64 = (0..p * p).map(|k| share(k / p, y) * share(k % p, x) * f64::from(old[k])).sum();
            *value = sum as f32;
        }
    }
    Ok(Tensor::from_f32([n, c, q, q], &kernels)?.to_dtype(old.dtype())?)
}
