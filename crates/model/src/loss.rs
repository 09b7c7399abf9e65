//! The loss of a batch and its gradients. The network is a chain with one fan-out (media into every
//! cross-attention block), so the tape is a stack of what each layer saved.

use pheye_ops::attention::Span;
use pheye_ops::cross_entropy::Sum;
use pheye_ops::lora::Dropout;
use pheye_ops::{Cx, add, cross_entropy, embedding, layernorm, linear};
use pheye_phi::Layout;
use pheye_tensor::{Grads, Tensor};

use crate::error::count;
use crate::{Error, Pheye, Result};

/// Images, and packed token sequences about them. Several sequences may share an image, which is then encoded
/// once. Sequences are ordered by image.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Pixels `[images · (1 + L²), 3, s, s]`, f32: the global tiles of all images first, then the local
    /// tiles.
    pub pixels: Tensor,
    /// Number of images.
    pub images: usize,
    /// Token ids of all sequences, concatenated.
    pub ids: Vec<u32>,
    /// The target of each token, or -100 where there is no loss.
    pub targets: Vec<i64>,
    /// Length of each sequence.
    pub lengths: Vec<usize>,
    /// The image index of each sequence, ascending.
    pub image: Vec<usize>,
}

impl Batch {
    /// Checks that the numbers of tokens, targets, sequences and images fit each other.
    ///
    /// # Errors
    /// [`Error::Batch`] or [`Error::Images`] when they do not.
    pub fn check(&self) -> Result<()> {
        count("tokens of all sequences", self.ids.len(), self.lengths.iter().sum())?;
        count("targets", self.targets.len(), self.ids.len())?;
        check_images(&self.image, self.lengths.len(), self.images)
    }
}

/// Stacks the pixels of several images in batch order, `[images · (1 + L²), 3, s, s]`, with all global tiles
/// first. Each image is given as its global tile `[3, s, s]` and its local tiles `[L², 3, s, s]`.
///
/// # Errors
/// When the number of pixels is not a multiple of that of a tile with side `size`.
pub fn stack(size: usize, images: &[(&[f32], &[f32])]) -> Result<Tensor> {
    let parts = || images.iter().map(|p| p.0).chain(images.iter().map(|p| p.1));
    let tiles = parts().map(<[f32]>::len).sum::<usize>() / (3 * size * size).max(1);
    let pixels: Vec<f32> = parts().flatten().copied().collect();
    Ok(Tensor::from_f32([tiles, 3, size, size], &pixels)?)
}

/// A loss summed over tokens, and the number of tokens. Dividing once, after all micro-batches of a step,
/// gives every token the same weight.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Loss {
    /// Cross entropy in nats, summed over the tokens with a target.
    pub sum: f64,
    /// Number of these tokens.
    pub tokens: usize,
}

/// A [`Loss`] whose sum may not have been computed by the GPU yet, so that the work can be recorded in a
/// graph.
#[derive(Debug)]
pub struct QueuedLoss {
    /// Cross entropy in nats, summed over the tokens with a target.
    pub sum: Sum,
    /// Number of these tokens.
    pub tokens: usize,
}

impl QueuedLoss {
    /// Waits for the device and returns the loss.
    ///
    /// # Errors
    /// When the device reports an error.
    pub fn read(&self) -> Result<Loss> {
        Ok(Loss { sum: self.sum.read()?, tokens: self.tokens })
    }
}

/// Checks that each of `sequences` sequences refers to one of `images` images, in ascending order.
///
/// # Errors
/// [`Error::Batch`] or [`Error::Images`] when they do not.
pub fn check_images(image: &[usize], sequences: usize, images: usize) -> Result<()> {
    count("images named by sequences", image.len(), sequences)?;
    if image.is_sorted() && image.last().is_none_or(|&last| last < images) {
        return Ok(());
    }
    Err(Error::Images { found: image.to_vec(), images })
}

/// Spans of cross-attention: the rows of all sequences about an image attend to the `media_tokens` rows of that image.
/// `lengths` are the rows of each sequence and `image` its image, ascending.
pub fn cross_spans(lengths: &[usize], image: &[usize], media_tokens: usize) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut start = 0;
    for (&len, &p) in lengths.iter().zip(image) {
        let k = p * media_tokens..(p + 1) * media_tokens;
        match spans.last_mut() {
            Some(last) if last.k == k => last.q.end = start + len,
            _ => spans.push(Span { q: start..start + len, k }),
        }
        start += len;
    }
    spans
}

/// What one layer saved: the tape is a stack of these.
enum Taped {
    Cross(pheye_xattn::Saved, linear::Saved),
    Block(pheye_phi::Saved),
    /// The input of a layer that is recomputed in backward.
    Input(Tensor),
}

type Tape = Vec<(usize, Taped)>;

/// The attention structure of a batch.
struct Visibility {
    layout: Layout,
    spans: Vec<Span>,
}

impl Pheye {
    fn visibility(&self, batch: &Batch) -> Result<Visibility> {
        batch.check()?;
        let spans = cross_spans(&batch.lengths, &batch.image, self.config.media_tokens());
        Ok(Visibility { layout: Layout::packed(&batch.lengths), spans })
    }

    /// Runs decoder layer i and the cross-attention block before it; what they save is pushed on the tape.
    fn layer(
        &self,
        cx: &Cx,
        i: usize,
        mut x: Tensor,
        media: &Tensor,
        visibility: &Visibility,
        tape: &mut Tape,
    ) -> Result<Tensor> {
        if let Some(cross) = &self.cross[i] {
            let (kv, kv_saved) = cross.attn.kv(cx, media)?;
            let (y, saved) = cross.forward(cx, &x, &kv, &visibility.spans)?;
            x = y;
            tape.push((i, Taped::Cross(saved, kv_saved)));
        }
        let (y, saved) = self.phi.blocks[i].forward(cx, &x, &visibility.layout, &self.phi.rotary, None)?;
        tape.push((i, Taped::Block(saved)));
        Ok(y)
    }

    /// Runs the decoder up to its final LayerNorm. With a tape, every layer that the backward pass reaches
    /// pushes what it saves.
    fn hidden(
        &self,
        cx: &Cx,
        ids: &[u32],
        media: &Tensor,
        visibility: &Visibility,
        mut tape: Option<&mut Tape>,
    ) -> Result<Tensor> {
        let mut x = embedding::forward(cx, ids, &self.phi.embed)?;
        let first = self.trainable.first_layer;
        for i in 0..self.cross.len() {
            let mut saved = Tape::new();
            let y = self.layer(cx, i, x.clone(), media, visibility, &mut saved)?;
            if let Some(tape) = tape.as_deref_mut().filter(|_| i >= first) {
                match i - first < self.recompute.text {
                    true => tape.push((i, Taped::Input(x))),
                    false => tape.extend(saved),
                }
            }
            x = y;
        }
        Ok(x)
    }

    /// Logits `[tokens, vocab_size]` of a batch with the image tokens `media`.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn logits(&self, cx: &Cx, media: &Tensor, batch: &Batch) -> Result<Tensor> {
        cx.install(|| {
            let x = self.hidden(cx, &batch.ids, media, &self.visibility(batch)?, None)?;
            let (x, _) = layernorm::forward(cx, &x, &self.phi.final_norm)?;
            Ok(linear::forward(cx, &x, &self.phi.head)?.0)
        })
    }

    /// The loss of a batch.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn loss(&self, cx: &Cx, batch: &Batch) -> Result<Loss> {
        cx.install(|| {
            let media = self.encode(cx, &batch.pixels, batch.images)?;
            let x = self.hidden(cx, &batch.ids, &media, &self.visibility(batch)?, None)?;
            let (x, _) = layernorm::forward(cx, &x, &self.phi.final_norm)?;
            let loss = cross_entropy::run(cx, &x, &self.phi.head, &batch.targets, false, None)?;
            Ok(Loss { sum: loss.sum, tokens: loss.tokens })
        })
    }

    /// The loss of a batch. The gradients of its sum are accumulated in `grads`, for the parameters chosen by
    /// [`Pheye::train`].
    ///
    /// # Errors
    /// When an operation fails.
    pub fn loss_and_grads(
        &self,
        cx: &Cx,
        batch: &Batch,
        dropout: Option<Dropout>,
        grads: &mut Grads,
    ) -> Result<Loss> {
        cx.install(|| self.queue_loss_and_grads(cx, batch, dropout, grads))?.read()
    }

    /// [`Pheye::loss_and_grads`] without waiting for the device. If the pixels are on the device already,
    /// [`Cx::replay`] can record the work.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn queue_loss_and_grads(
        &self,
        cx: &Cx,
        batch: &Batch,
        dropout: Option<Dropout>,
        grads: &mut Grads,
    ) -> Result<QueuedLoss> {
        self.check_pixels(&batch.pixels, batch.images)?;
        if !self.trainable.vit {
            // Adapters that are not trained have no dropout.
            let x = self.vit.infer(cx, &batch.pixels, &self.route(batch.images, None))?;
            return Ok(self.after_tower(cx, batch, &x, grads)?.0);
        }
        let (x, vit) = self.vit.forward(cx, &batch.pixels, &self.route(batch.images, dropout))?;
        let (loss, dx) = self.after_tower(cx, batch, &x, grads)?;
        if let Some(dx) = dx {
            self.vit.backward(cx, vit, dx, grads)?;
        }
        Ok(loss)
    }

    /// [`Pheye::queue_loss_and_grads`] of a model whose vision tower is not trained, for images with the features
    /// `features` ([`Pheye::features`]); the batch needs no pixels.
    ///
    /// # Errors
    /// When the number of features is wrong, or an operation fails.
    pub fn loss_and_grads_of_features(
        &self,
        cx: &Cx,
        features: &Tensor,
        batch: &Batch,
        grads: &mut Grads,
    ) -> Result<QueuedLoss> {
        self.check_pixels(features, batch.images)?;
        cx.install(|| Ok(self.after_tower(cx, batch, features, grads)?.0))
    }

    /// The part of the network after the vision tower, whose output is `x`: the loss, and the gradient of x if the
    /// vision side is trained.
    fn after_tower(
        &self,
        cx: &Cx,
        batch: &Batch,
        x: &Tensor,
        grads: &mut Grads,
    ) -> Result<(QueuedLoss, Option<Tensor>)> {
        let (media, connector) = self.connector.forward(cx, x, batch.images)?;
        let (loss, dmedia) = self.queue_language(cx, batch, &media, grads)?;
        let dx = dmedia.map(|dmedia| self.connector.backward(cx, &connector, &dmedia, grads)).transpose()?;
        Ok((loss, dx))
    }

    /// The part of the network after the image features: the loss, and the gradient of media if the vision
    /// side is trained. Gradients of the sum are accumulated in `grads`.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn language(
        &self,
        cx: &Cx,
        batch: &Batch,
        media: &Tensor,
        grads: &mut Grads,
    ) -> Result<(Loss, Option<Tensor>)> {
        let (loss, dmedia) = cx.install(|| self.queue_language(cx, batch, media, grads))?;
        Ok((loss.read()?, dmedia))
    }

    fn queue_language(
        &self,
        cx: &Cx,
        batch: &Batch,
        media: &Tensor,
        grads: &mut Grads,
    ) -> Result<(QueuedLoss, Option<Tensor>)> {
        let visibility = self.visibility(batch)?;
        let mut tape = Tape::new();
        let x = self.hidden(cx, &batch.ids, media, &visibility, Some(&mut tape))?;
        let (x, norm) = layernorm::forward(cx, &x, &self.phi.final_norm)?;
        let loss = cross_entropy::queue(cx, &x, &self.phi.head, &batch.targets, true, Some(&mut *grads))?;
        let result = QueuedLoss { sum: loss.sum, tokens: loss.tokens };
        let Some(dx) = loss.dx else { return Ok((result, None)) };

        let mut dx = layernorm::backward(cx, &norm, &dx, &self.phi.final_norm, Some(&mut *grads))?;
        let mut dmedia = None;
        while let Some((i, taped)) = tape.pop() {
            match (taped, &self.cross[i]) {
                (Taped::Input(x), _) => {
                    self.layer(cx, i, x, media, &visibility, &mut tape)?;
                }
                (Taped::Block(saved), _) => {
                    let block = &self.phi.blocks[i];
                    dx = block.backward(
                        cx,
                        &saved,
                        dx,
                        &visibility.layout,
                        &self.phi.rotary,
                        Some(&mut *grads),
                    )?;
                }
                (Taped::Cross(saved, kv), Some(cross)) => {
                    let (d, dkv) = cross.backward(cx, &saved, dx, &visibility.spans, grads)?;
                    dx = d;
                    if self.trainable.vision {
                        add::accumulate(cx, &mut dmedia, cross.attn.kv_backward(cx, &kv, &dkv, grads)?)?;
                    } else {
                        cross.attn.kv_backward_params(cx, &kv, &dkv, grads)?;
                    }
                }
                (Taped::Cross(..), None) => unreachable!("only a block saves"),
            }
        }
        if self.trainable.embed {
            embedding::backward(cx, &batch.ids, &dx, &self.phi.embed, Some(grads))?;
        }
        Ok((result, dmedia))
    }
}
