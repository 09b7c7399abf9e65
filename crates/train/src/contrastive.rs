//! Contrastive pretraining of the vision tower on captions (CLIP, arXiv 2103.00020): the embedding of an
//! image should be nearest to that of its caption.
//!
//! The tower encodes an image as in Pheye, the global image and every tile in one pass. The image embedding
//! is the mean of all tokens, normalized and projected. The text embedding is the mean of trained token
//! embeddings, projected; the text side is used only for this training and is not exported.

use pheye_data::Batch;
use pheye_model::{Config, Loss};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::{self, Linear};
use pheye_ops::lora::Route;
use pheye_ops::{Cx, RandomInit, add, contrastive, embedding, pool};
use pheye_tensor::{Grads, Init, Param, Scope, Tensor};
use pheye_vit::Vit;

use crate::Result;

/// Name of the tower in a Pheye checkpoint, so that the training of Pheye can start from the exported file.
const PREFIX: &str = "vision_encoder.vision_model.base_model.model";

/// A vision tower and the two projection heads of contrastive training.
pub(crate) struct Contrastive {
    pub(crate) vit: Vit,
    norm: LayerNorm,
    project: Linear,
    words: Param,
    words_project: Linear,
    /// Logarithm of the inverse temperature.
    log_scale: Param,
}

impl Contrastive {
    pub(crate) fn new(config: &Config, seed: u64) -> Result<Contrastive> {
        let mut random = RandomInit::new(seed);
        let vit = Vit::new(&mut Scope::new(&mut random, PREFIX), &config.vision, &[])
            .map_err(pheye_model::Error::from)?;
        let d = config.vision.hidden_size;
        let start = Init::fan_in(d);
        let mut scope = Scope::new(&mut random, "contrastive");
        let norm = LayerNorm::new(&mut scope.at("norm"), d, config.vision.layer_norm_eps);
        let project = Linear::new(&mut scope.at("project"), d, d, false, start);
        let words = scope.param("words", [config.text.vocab_size, d], Init::Normal(1.0));
        let words_project = Linear::new(&mut scope.at("words_project"), d, d, false, start);
        let mut log_scale = scope.param("log_scale", [1], Init::Zeros);
        log_scale.value = Tensor::from_f32([1], &[(1.0f32 / 0.07).ln()])?;
        Ok(Contrastive { vit, norm, project, words, words_project, log_scale })
    }

    pub(crate) fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.vit.params_mut();
        all.extend(self.norm.params_mut());
        all.extend(self.project.params_mut());
        all.push(&mut self.words);
        all.extend(self.words_project.params_mut());
        all.push(&mut self.log_scale);
        all
    }

    /// The loss summed over the images of the batch; adds its gradients to `grads`.
    pub(crate) fn loss_and_grads(&self, cx: &Cx, batch: &Batch, grads: &mut Grads) -> Result<Loss> {
        let (captions, labels) = unique(batch);
        let lengths: Vec<usize> = captions.iter().map(|c| c.len()).collect();
        let ids = captions.concat();
        let words = embedding::forward(cx, &ids, &self.words)?;
        let (texts, text_saved) =
            linear::forward(cx, &pool::forward(cx, &words, &lengths)?, &self.words_project)?;

        let route = Route { ranges: Vec::new(), dropout: None };
        let count = batch.images.len();
        let pixels = by_image(batch)?;
        let (x, vit) = self.vit.forward(cx, &pixels, &route)?;
        let tokens = vec![x.shape().rows() / count; count];
        let (pooled, norm) = layernorm::forward(cx, &pool::forward(cx, &x, &tokens)?, &self.norm)?;
        let (images, image_saved) = linear::forward(cx, &pooled, &self.project)?;

        let log_scale = self.log_scale.value.to_vec_f32()?.first().copied().unwrap_or(0.0);
        let loss = contrastive::forward_backward(cx, &images, &texts, &labels, log_scale)?;
        // `contrastive` returns the mean over the images. It is multiplied by their number, by which the
        // optimizer divides.
        let n = count as f32;
        grads.add(&self.log_scale, &[n * loss.dlog_scale])?;
        let scaled = |t: Tensor| add::scale(cx, t, n);
        let dpooled =
            linear::backward(cx, &image_saved, &scaled(loss.dimages)?, &self.project, Some(&mut *grads))?;
        let dmean = layernorm::backward(cx, &norm, &dpooled, &self.norm, Some(&mut *grads))?;
        self.vit.backward(cx, vit, pool::backward(cx, &dmean, &tokens)?, grads)?;
        let dtext =
            linear::backward(cx, &text_saved, &scaled(loss.dtexts)?, &self.words_project, Some(&mut *grads))?;
        embedding::backward(cx, &ids, &pool::backward(cx, &dtext, &lengths)?, &self.words, Some(grads))?;
        Ok(Loss { sum: loss.loss * f64::from(n), tokens: count })
    }
}

/// The distinct captions of a batch as token ids, and the index of each image's caption.
fn unique(batch: &Batch) -> (Vec<&[u32]>, Vec<usize>) {
    let mut captions: Vec<&[u32]> = Vec::new();
    let mut labels = vec![0; batch.images.len()];
    for s in &batch.sequences {
        let known = captions.iter().position(|c| *c == s.ids);
        labels[s.image] = known.unwrap_or(captions.len());
        if known.is_none() {
            captions.push(&s.ids);
        }
    }
    (captions, labels)
}

/// Pixels `[images · (1 + L²), 3, s, s]`; the views of each image (global image, then tiles) are consecutive.
fn by_image(batch: &Batch) -> Result<Tensor> {
    let views: usize = batch.images.iter().map(|p| 1 + p.tiles.count).sum();
    let size = batch.images.first().map_or(0, |p| p.tiles.size);
    let pixels: Vec<f32> =
        batch.images.iter().flat_map(|p| p.tiles.global.iter().chain(&p.tiles.local).copied()).collect();
    Ok(Tensor::from_f32([views, 3, size, size], &pixels)?)
}
