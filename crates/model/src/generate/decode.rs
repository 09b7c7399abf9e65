//! Pheye's slots: incremental decoding with a key/value cache. Each slot of the cache holds one text about an image.
//!
//! The keys and values of the images are one tensor for all slots; slots about the same image share its rows
//! through the spans.

use pheye_ops::attention::Span;
use pheye_ops::{Cx, Graphs, embedding, layernorm, linear, rows};
use pheye_phi::{Cache, Layout};
use pheye_tensor::Tensor;

use super::{CopyRows, Generated, GenerationConfig, Hooks, SlotCaches, Slots};
use crate::error::count;
use crate::loss::{check_images, cross_spans};
use crate::{Pheye, Result};

impl Pheye {
    /// The keys and values of media for every cross-attention block (`None` for layers without one). They are
    /// the same for all tokens of all answers.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn cross_kv(&self, cx: &Cx, media: &Tensor) -> Result<Vec<Option<Tensor>>> {
        self.cross
            .iter()
            .map(|block| block.as_ref().map(|b| Ok(b.attn.kv_to_keep(cx, media)?)).transpose())
            .collect()
    }

    /// Answers each prompt about its image. Prompts may differ in length; each gets the answer it would get
    /// alone. `image[i]`, ascending, is the image index of prompt i, a row of media.
    ///
    /// # Errors
    /// [`crate::Error::Generation`] when options are out of range or conflict with each other or with `hooks`. When
    /// a prompt is empty or leaves no room in the context, or an operation fails.
    pub fn generate(
        &self,
        cx: &Cx,
        kvs: &[Option<Tensor>],
        prompts: &[Vec<u32>],
        image: &[usize],
        how: &GenerationConfig,
        hooks: Hooks,
    ) -> Result<Generated> {
        self.check_about(kvs, prompts.len(), image)?;
        super::run(cx, &mut Decoder::new(self, cx, kvs, image), prompts, how, hooks)
    }

    /// Scores `[vocab_size]` of the token after each prompt, after processors and, with `do_sample`, warpers.
    /// Sampling draws from their softmax.
    ///
    /// # Errors
    /// When [`Pheye::generate`] fails.
    pub fn next_scores(
        &self,
        cx: &Cx,
        kvs: &[Option<Tensor>],
        prompts: &[Vec<u32>],
        image: &[usize],
        how: &GenerationConfig,
    ) -> Result<Vec<Vec<f32>>> {
        self.check_about(kvs, prompts.len(), image)?;
        super::next_scores(&mut Decoder::new(self, cx, kvs, image), prompts, how)
    }

    /// Checks that each prompt is about one of the images of `kvs`.
    pub(crate) fn check_about(&self, kvs: &[Option<Tensor>], prompts: usize, image: &[usize]) -> Result<()> {
        count("layers of keys and values", kvs.len(), self.cross.len())?;
        let media = kvs.iter().flatten().map(|kv| kv.shape().rows() / self.config.media_tokens()).min();
        check_images(image, prompts, media.unwrap_or(usize::MAX))
    }
}

/// The key/value caches of several texts, and the step that appends tokens to them.
struct Decoder<'a> {
    model: &'a Pheye,
    cx: &'a Cx,
    kvs: &'a [Option<Tensor>],
    /// The image of each prompt, ascending.
    about: &'a [usize],
    /// The image of each slot, ascending.
    image: Vec<usize>,
    caches: SlotCaches,
    graphs: Graphs,
}

impl<'a> Decoder<'a> {
    /// No slots yet; `about` is the image index of each prompt.
    fn new(model: &'a Pheye, cx: &'a Cx, kvs: &'a [Option<Tensor>], about: &'a [usize]) -> Decoder<'a> {
        let (image, caches, graphs) = (Vec::new(), SlotCaches::default(), Graphs::default());
        Decoder { model, cx, kvs, about, image, caches, graphs }
    }
}

impl Slots for Decoder<'_> {
    fn vocab_size(&self) -> usize {
        self.model.config.text.vocab_size
    }

    fn context(&self) -> usize {
        self.model.config.text.max_position_embeddings
    }

    fn slot_bytes(&self, tokens: usize) -> u128 {
        let c = &self.model.config.text;
        let wide = |n: usize| n as u128;
        // Keys and values of each layer.
        4 * 2 * wide(c.num_hidden_layers) * wide(tokens) * wide(c.hidden_size)
    }

    fn allocate(&mut self, prompts: usize, copies: usize, tokens: usize) -> Result<()> {
        count("images of prompts", self.about.len(), prompts)?;
        self.image = self.about.iter().flat_map(|&image| std::iter::repeat_n(image, copies)).collect();
        let width = self.model.config.text.hidden_size;
        self.caches = SlotCaches::new(self.cx, self.model.phi.blocks.len(), self.image.len(), tokens, width)?;
        Ok(())
    }

    fn step(&mut self, feed: &[Vec<u32>]) -> Result<Tensor> {
        let new: Vec<usize> = feed.iter().map(Vec::len).collect();
        let layout = self.caches.layout(&new);
        let spans = cross_spans(&new, &self.image, self.model.config.media_tokens());
        let ids = feed.concat();
        let Decoder { model, cx, kvs, caches, graphs, .. } = self;
        let mut forward = |cx: &Cx| forward(model, cx, &ids, (&layout, &spans), kvs, &mut caches.caches);
        // Only prefill has several tokens per slot; all decoding steps have the same shape and are replayed
        // as a CUDA graph.
        let logits = if ids.len() <= feed.len() { cx.replay(graphs, forward)? } else { forward(cx)? };
        self.caches.advance(&new);
        Ok(logits)
    }

    fn copy(&mut self, copies: &[CopyRows]) -> Result<()> {
        self.caches.copy(self.cx, copies)
    }

    fn past(&self, slot: usize) -> usize {
        self.caches.past[slot]
    }
}

fn forward(
    model: &Pheye,
    cx: &Cx,
    ids: &[u32],
    (layout, spans): (&Layout, &[Span]),
    kvs: &[Option<Tensor>],
    caches: &mut [Cache],
) -> Result<Tensor> {
    let cx = &cx.inference();
    let mut x = embedding::forward(cx, ids, &model.phi.embed)?;
    let layers = model.cross.iter().zip(kvs).zip(&model.phi.blocks).zip(caches);
    for (((cross, kv), block), cache) in layers {
        if let (Some(cross), Some(kv)) = (cross, kv) {
            x = cross.forward(cx, &x, kv, spans)?.0;
        }
        x = block.forward(cx, &x, layout, &model.phi.rotary, Some(cache))?.0;
    }
    let last: Vec<usize> = layout.spans.iter().map(|s| s.q.end - 1).collect();
    let (x, _) = layernorm::forward(cx, &rows::gather(cx, &x, &last)?, &model.phi.final_norm)?;
    Ok(linear::forward(cx, &x, &model.phi.head)?.0)
}
