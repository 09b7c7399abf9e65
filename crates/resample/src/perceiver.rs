//! The Perceiver resampler of Flamingo: learnt latents pass through `depth` layers, in which they attend to the image
//! tokens and to themselves, then through a LayerNorm.

use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::{Cx, Result, embedding};
use pheye_tensor::{Grads, Init, Param, Scope, Tensor};

use crate::PerceiverConfig;
use crate::batch::{check, repeated};
use crate::layer::{self, Keys, Layer};

/// The parameters of a Perceiver resampler.
#[derive(Debug)]
pub struct Perceiver {
    latents: Param,
    layers: Vec<Layer>,
    norm: LayerNorm,
}

/// Values that the backward of a Perceiver resampler needs.
#[derive(Debug)]
pub struct Saved {
    keys: Keys,
    latents: Vec<u32>,
    layers: Vec<layer::Saved>,
    norm: layernorm::Saved,
}

impl Perceiver {
    /// The resampler at `scope`, for tokens that are `width` wide.
    ///
    /// # Errors
    /// When the sizes are inconsistent.
    pub fn new(
        scope: &mut Scope,
        config: &PerceiverConfig,
        width: usize,
    ) -> std::result::Result<Perceiver, crate::Error> {
        config.validate(width)?;
        let latents = scope.param("latents", [config.queries, width], Init::Normal(1.0));
        let mut layers = scope.at("layers");
        let layers = (0..config.depth).map(|i| Layer::new(&mut layers.at(i), config, width)).collect();
        let norm = LayerNorm::new(&mut scope.at("norm"), width, 1e-5);
        Ok(Perceiver { latents, layers, norm })
    }

    /// All parameters, in network order.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = vec![&mut self.latents];
        all.extend(self.layers.iter_mut().flat_map(Layer::params_mut));
        all.extend(self.norm.params_mut());
        all
    }

    /// y [images, queries, width] for the tokens x [rows, width] of all images, of which image i has `lengths[i]`.
    ///
    /// # Errors
    /// [`pheye_ops::Error::Range`] when an image has no rows, or x has another number of rows, and an error when x has
    /// another width, or a GPU is out of memory or fails.
    pub fn forward(&self, cx: &Cx, x: &Tensor, lengths: &[usize]) -> Result<(Tensor, Saved)> {
        check(x, lengths, 1)?;
        let m = self.latents.shape().rows();
        let (keys, latents) = (Keys::new(lengths, m), repeated(m, lengths.len()));
        let (mut y, mut layers) = (embedding::forward(cx, &latents, &self.latents)?, Vec::new());
        for layer in &self.layers {
            let (next, saved) = layer.forward(cx, &y, x, &keys)?;
            y = next;
            layers.push(saved);
        }
        let (y, norm) = layernorm::forward(cx, &y, &self.norm)?;
        let y = y.reshape([lengths.len(), m, y.shape().cols()])?;
        Ok((y, Saved { keys, latents, layers, norm }))
    }

    /// dx [rows, width] for dy [images, queries, width]; the gradients of trained parameters are accumulated in
    /// `grads`.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn backward(&self, cx: &Cx, s: &Saved, dy: &Tensor, grads: &mut Grads) -> Result<Tensor> {
        let mut dy = layernorm::backward(cx, &s.norm, dy, &self.norm, Some(&mut *grads))?;
        let mut dx = None;
        for (layer, saved) in self.layers.iter().zip(&s.layers).rev() {
            let (dlatents, dmedia) = layer.backward(cx, saved, dy, dx, &s.keys, grads)?;
            (dy, dx) = (dlatents, Some(dmedia));
        }
        embedding::backward(cx, &s.latents, &dy, &self.latents, Some(grads))?;
        match dx {
            Some(dx) => Ok(dx),
            None => unreachable!("depth is positive"),
        }
    }
}
