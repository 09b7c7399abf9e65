//! The loss of a batch and its gradients. What each layer saves is on a stack, the tape.

use pheye_model::{Batch, Loss, QueuedLoss};
use pheye_ops::attention::Layout;
use pheye_ops::lora::Dropout;
use pheye_ops::{Cx, add, cross_entropy, embedding, layernorm, linear};
use pheye_tensor::{Grads, Tensor};

use crate::packed::{Packed, Sequence};
use crate::{Baseline, Result};

/// What one part of a layer saved.
enum Taped {
    Attend(pheye_gpt2::attention::Saved),
    Cross(pheye_xattn::AttentionSaved, linear::Saved),
    Mlp(pheye_gpt2::mlp::Saved),
    /// The input of a layer that is recomputed in backward.
    Input(Tensor),
}

type Tape = Vec<(usize, Taped)>;

impl Baseline {
    fn packed(&self, batch: &Batch) -> Result<Packed> {
        batch.check()?;
        let prefix = self.config.prefix();
        let sequences: Vec<Sequence> = batch
            .lengths
            .iter()
            .zip(&batch.image)
            .map(|(&text, &image)| Sequence { image, prefix, text })
            .collect();
        let lengths: Vec<usize> = sequences.iter().map(Sequence::rows).collect();
        Ok(Packed::new(Layout::packed(&lengths), sequences, batch.images, self.config.media_tokens()))
    }

    /// The input of the first layer: the rows of the images, if they stand before the text, and the tokens, with the
    /// position of each.
    pub(crate) fn input(
        &self,
        cx: &Cx,
        ids: &[u32],
        media: &Tensor,
        packed: &Packed,
    ) -> pheye_ops::Result<Tensor> {
        let x = packed.join(cx, media, self.gpt2.embed(cx, ids)?)?;
        self.gpt2.add_positions(cx, x, &packed.layout.positions)
    }

    /// Runs layer i: self-attention, cross-attention if the system has it, MLP. What they save is pushed on the tape.
    fn layer(
        &self,
        cx: &Cx,
        i: usize,
        x: &Tensor,
        media: &Tensor,
        packed: &Packed,
        tape: &mut Tape,
    ) -> Result<Tensor> {
        let block = &self.gpt2.blocks[i];
        let (mut x, attend) = block.attend.forward(cx, x, &packed.layout, None)?;
        tape.push((i, Taped::Attend(attend)));
        if let Some(cross) = self.cross.get(i) {
            let (kv, kv_saved) = cross.kv(cx, media)?;
            let (y, saved) = cross.forward(cx, &x, &kv, &packed.cross)?;
            tape.push((i, Taped::Cross(saved, kv_saved)));
            x = y;
        }
        let (y, mlp) = block.mlp.forward(cx, &x)?;
        tape.push((i, Taped::Mlp(mlp)));
        Ok(y)
    }

    /// The residual stream of all rows after the last layer. With a tape, every layer pushes what it saves.
    fn hidden(
        &self,
        cx: &Cx,
        ids: &[u32],
        media: &Tensor,
        packed: &Packed,
        mut tape: Option<&mut Tape>,
    ) -> Result<Tensor> {
        let mut x = self.input(cx, ids, media, packed)?;
        for i in 0..self.gpt2.blocks.len() {
            let mut saved = Tape::new();
            let y = self.layer(cx, i, &x, media, packed, &mut saved)?;
            if let Some(tape) = tape.as_deref_mut() {
                match i < self.recompute.text {
                    true => tape.push((i, Taped::Input(x))),
                    false => tape.extend(saved),
                }
            }
            x = y;
        }
        Ok(x)
    }

    /// Logits `[tokens, vocab_size]` of the text of a batch with the image rows `media`.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn logits(&self, cx: &Cx, media: &Tensor, batch: &Batch) -> Result<Tensor> {
        cx.install(|| {
            let (cx, packed) = (&cx.inference(), self.packed(batch)?);
            let x = packed.text(cx, self.hidden(cx, &batch.ids, media, &packed, None)?)?;
            let (x, _) = layernorm::forward(cx, &x, &self.gpt2.final_norm)?;
            Ok(linear::forward(cx, &x, &self.gpt2.head)?.0)
        })
    }

    /// The loss of a batch: the cross entropy of the tokens with a target.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn loss(&self, cx: &Cx, batch: &Batch) -> Result<Loss> {
        cx.install(|| {
            let (media, packed) = (self.encode(cx, &batch.pixels, batch.images)?, self.packed(batch)?);
            let x = self.hidden(&cx.inference(), &batch.ids, &media, &packed, None)?;
            let (x, _) = layernorm::forward(cx, &x, &self.gpt2.final_norm)?;
            let targets = packed.targets(&batch.targets);
            let loss = cross_entropy::run(cx, &x, &self.gpt2.head, &targets, false, None)?;
            Ok(Loss { sum: loss.sum, tokens: loss.tokens })
        })
    }

    /// The loss of a batch. The gradients of its sum are accumulated in `grads`, for the parameters chosen by
    /// [`Baseline::train`].
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
        let loss = cx.install(|| self.queue_loss_and_grads(cx, batch, dropout, grads))?;
        Ok(loss.read()?)
    }

    /// [`Baseline::loss_and_grads`] without waiting for the device.
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
        if !self.trained.vit {
            // LoRA sets that are not trained have no dropout.
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

    /// [`Baseline::queue_loss_and_grads`] of a system whose vision tower is not trained, for images with the last
    /// hidden state `x` ([`Baseline::tower`]); the batch needs no pixels.
    ///
    /// # Errors
    /// When the number of tiles is wrong, or an operation fails.
    pub fn loss_and_grads_of_tower(
        &self,
        cx: &Cx,
        x: &Tensor,
        batch: &Batch,
        grads: &mut Grads,
    ) -> Result<QueuedLoss> {
        let tiles = x.shape().rows() / self.config.vision.tokens();
        self.check_tiles(tiles, batch.images)?;
        cx.install(|| Ok(self.after_tower(cx, batch, x, grads)?.0))
    }

    /// The part of the network after the vision tower, whose output is `x`: the loss, and the gradient of x if the
    /// tower is trained.
    fn after_tower(
        &self,
        cx: &Cx,
        batch: &Batch,
        x: &Tensor,
        grads: &mut Grads,
    ) -> Result<(QueuedLoss, Option<Tensor>)> {
        let (features, of_features) = self.connector.features(cx, &self.vit, x, batch.images)?;
        let (media, of_media) = self.connector.media(cx, &features, batch.images)?;
        let (loss, dmedia) = self.queue_language(cx, batch, &media, grads)?;
        let Some(dmedia) = dmedia else { return Ok((loss, None)) };
        let wanted = self.trained.features;
        let dfeatures = self.connector.media_backward(cx, &of_media, dmedia, wanted, grads)?;
        let backward =
            |d| self.connector.features_backward(cx, &self.vit, &of_features, d, batch.images, grads);
        Ok((loss, dfeatures.map(backward).transpose()?))
    }

    /// The part of the network after the media: the loss, and the gradient of the media if anything before them is
    /// trained. Gradients of the sum are accumulated in `grads`.
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
        let packed = self.packed(batch)?;
        let mut tape = Tape::new();
        let x = self.hidden(cx, &batch.ids, media, &packed, Some(&mut tape))?;
        let (x, norm) = layernorm::forward(cx, &x, &self.gpt2.final_norm)?;
        let targets = packed.targets(&batch.targets);
        let loss = cross_entropy::queue(cx, &x, &self.gpt2.head, &targets, true, Some(&mut *grads))?;
        let result = QueuedLoss { sum: loss.sum, tokens: loss.tokens };
        let Some(dx) = loss.dx else { return Ok((result, None)) };

        let mut dx = layernorm::backward(cx, &norm, &dx, &self.gpt2.final_norm, Some(&mut *grads))?;
        let mut dmedia = None;
        while let Some((i, taped)) = tape.pop() {
            let block = &self.gpt2.blocks[i];
            match taped {
                Taped::Input(x) => {
                    self.layer(cx, i, &x, media, &packed, &mut tape)?;
                }
                Taped::Mlp(saved) => dx = block.mlp.backward(cx, &saved, dx, Some(&mut *grads))?,
                Taped::Cross(saved, kv) => {
                    let (d, dkv) = self.cross[i].backward(cx, &saved, dx, &packed.cross, grads)?;
                    dx = d;
                    if self.trained.media {
                        add::accumulate(cx, &mut dmedia, self.cross[i].kv_backward(cx, &kv, &dkv, grads)?)?;
                    } else {
                        self.cross[i].kv_backward_params(cx, &kv, &dkv, grads)?;
                    }
                }
                Taped::Attend(saved) => {
                    dx = block.attend.backward(cx, &saved, dx, &packed.layout, Some(&mut *grads))?;
                }
            }
        }
        if self.trained.media && self.config.prefix() > 0 {
            dmedia = Some(packed.media_backward(cx, &dx)?);
        }
        if self.trained.embed {
            embedding::backward(cx, &packed.layout.positions, &dx, &self.gpt2.wpe, Some(&mut *grads))?;
            let dtext = packed.text(cx, dx)?;
            embedding::backward(cx, &batch.ids, &dtext, &self.gpt2.head.weight, Some(grads))?;
        }
        Ok((result, dmedia))
    }
}
