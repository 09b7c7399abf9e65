//! A model at another resolution level, or with cross-attention before other layers.

use std::collections::HashMap;

use pheye_tensor::Tensor;

use crate::lora::LoraSet;
use crate::pheye::CONNECTOR_PREFIX;
use crate::{Config, Pheye, Result};

impl Pheye {
    /// This model with the images of `level` (1 for the global image alone, L for L×L tiles as well) and
    /// cross-attention before every `cross_interval`th decoder layer. All parameters that remain are kept. What the
    /// new tiles need and the model lacks starts as what it knows best: the LoRA set and the norm of tiles as those of
    /// the global image, and the embedding of each new tile as the mean of those in use, plus N(0, 0.02²) from `seed`
    /// to tell tiles apart. New cross-attention blocks start at random. A sequence of lessons can so begin with small
    /// images.
    ///
    /// # Errors
    /// When `level` or `cross_interval` is out of range.
    pub fn adapted(mut self, level: usize, cross_interval: usize, seed: u64) -> Result<Pheye> {
        let tiles_before = self.config.connector.local_tiles();
        let grows = level > self.config.connector.level;
        let mut config: Config = self.config.clone();
        (config.connector.level, config.connector.cross_interval) = (level, cross_interval);
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
            let Some(value) = known.get(&global).filter(|value| value.shape() == param.value.shape()) else {
                continue;
            };
            if grows && param.name == format!("{CONNECTOR_PREFIX}.connector.embedding.weight") {
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
