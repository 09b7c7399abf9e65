//! Generation: the slots of a system's key-value cache. The rows of an image that stand before its text are read
//! together with the prompt, when a slot is still empty.

use pheye_model::generate::{self, CopyRows, SlotCaches, Slots};
use pheye_model::{Generated, GenerationConfig, Hooks};
use pheye_ops::attention::Cache;
use pheye_ops::{Cx, Graphs, layernorm, linear, rows};
use pheye_tensor::Tensor;

use crate::packed::{Packed, Sequence};
use crate::{Baseline, Result};

/// What every answer about some images reads: their media, and the keys and values of cross-attention in each layer.
#[derive(Debug)]
pub struct Images {
    media: Tensor,
    kvs: Vec<Tensor>,
}

impl Baseline {
    /// The keys and values of the images with these media `[images, media_tokens, text width]` ([`Baseline::encode`]).
    /// They are the same for all tokens of all answers.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn images(&self, cx: &Cx, media: Tensor) -> Result<Images> {
        let kvs = self.cross.iter().map(|cross| cross.kv_to_keep(cx, &media)).collect::<Result<_, _>>()?;
        Ok(Images { media, kvs })
    }

    /// Answers each prompt about its image. Prompts may differ in length; each gets the answer it would get alone.
    /// `image[i]`, ascending, is the number of the image of prompt i.
    ///
    /// # Errors
    /// When options are out of range or conflict with each other or with `hooks`, a prompt is empty or leaves no room in
    /// the context, or an operation fails.
    pub fn generate(
        &self,
        cx: &Cx,
        images: &Images,
        prompts: &[Vec<u32>],
        image: &[usize],
        how: &GenerationConfig,
        hooks: Hooks,
    ) -> Result<Generated> {
        let mut decoder = self.decoder(cx, images, prompts.len(), image)?;
        Ok(generate::run(cx, &mut decoder, prompts, how, hooks)?)
    }

    /// Scores `[vocab_size]` of the token after each prompt, after processors and, with `do_sample`, warpers.
    ///
    /// # Errors
    /// When [`Baseline::generate`] fails.
    pub fn next_scores(
        &self,
        cx: &Cx,
        images: &Images,
        prompts: &[Vec<u32>],
        image: &[usize],
        how: &GenerationConfig,
    ) -> Result<Vec<Vec<f32>>> {
        let mut decoder = self.decoder(cx, images, prompts.len(), image)?;
        Ok(generate::next_scores(&mut decoder, prompts, how)?)
    }

    fn decoder<'a>(
        &'a self,
        cx: &'a Cx,
        images: &'a Images,
        prompts: usize,
        about: &'a [usize],
    ) -> Result<Decoder<'a>> {
        let all = images.media.shape().rows() / self.config.media_tokens();
        pheye_model::check_images(about, prompts, all)?;
        let (image, caches, graphs) = (Vec::new(), SlotCaches::default(), Graphs::default());
        Ok(Decoder { model: self, cx, images, all, about, image, caches, graphs })
    }
}

/// The key-value caches of several texts, and the step that appends tokens to them.
struct Decoder<'a> {
    model: &'a Baseline,
    cx: &'a Cx,
    images: &'a Images,
    /// Number of images.
    all: usize,
    /// The image of each prompt, ascending.
    about: &'a [usize],
    /// The image of each slot, ascending.
    image: Vec<usize>,
    caches: SlotCaches,
    graphs: Graphs,
}

impl Slots for Decoder<'_> {
    fn vocab_size(&self) -> usize {
        self.model.config.text.vocab_size
    }

    fn context(&self) -> usize {
        self.model.config.context()
    }

    fn slot_bytes(&self, tokens: usize) -> u128 {
        let c = &self.model.config.text;
        let rows = tokens as u128 + self.model.config.prefix() as u128;
        4 * 2 * c.n_layer as u128 * rows * c.n_embd as u128
    }

    fn allocate(&mut self, prompts: usize, copies: usize, tokens: usize) -> pheye_model::Result<()> {
        if self.about.len() != prompts {
            let (what, found, expected) = ("images of prompts", self.about.len(), prompts);
            return Err(pheye_model::Error::Batch { what, found, expected });
        }
        self.image = self.about.iter().flat_map(|&image| std::iter::repeat_n(image, copies)).collect();
        let (layers, width) = (self.model.gpt2.blocks.len(), self.model.config.text.n_embd);
        let capacity = tokens + self.model.config.prefix();
        self.caches = SlotCaches::new(self.cx, layers, self.image.len(), capacity, width)?;
        Ok(())
    }

    fn step(&mut self, feed: &[Vec<u32>]) -> pheye_model::Result<Tensor> {
        let prefix = self.model.config.prefix();
        let sequence = |((new, &image), &past): ((&Vec<u32>, &usize), &usize)| {
            let prefix = if past == 0 && !new.is_empty() { prefix } else { 0 };
            Sequence { image, prefix, text: new.len() }
        };
        let sequences: Vec<Sequence> =
            feed.iter().zip(&self.image).zip(&self.caches.past).map(sequence).collect();
        let new: Vec<usize> = sequences.iter().map(Sequence::rows).collect();
        let layout = self.caches.layout(&new);
        let packed = Packed::new(layout, sequences, self.all, self.model.config.media_tokens());
        let ids = feed.concat();
        let Decoder { model, cx, images, caches, graphs, .. } = self;
        let mut forward = |cx: &Cx| forward(model, cx, &ids, &packed, images, &mut caches.caches);
        // Only the first step reads several rows per slot; all others have the same shape and are replayed as a CUDA
        // graph.
        let decodes = new.iter().all(|&rows| rows <= 1);
        let logits = if decodes { cx.replay(graphs, forward)? } else { forward(cx)? };
        self.caches.advance(&new);
        Ok(logits)
    }

    fn copy(&mut self, copies: &[CopyRows]) -> pheye_model::Result<()> {
        self.caches.copy(self.cx, copies)
    }

    fn past(&self, slot: usize) -> usize {
        self.caches.past[slot]
    }
}

fn forward(
    model: &Baseline,
    cx: &Cx,
    ids: &[u32],
    packed: &Packed,
    images: &Images,
    caches: &mut [Cache],
) -> Result<Tensor, pheye_ops::Error> {
    let cx = &cx.inference();
    let mut x = model.input(cx, ids, &images.media, packed)?;
    for (i, (block, cache)) in model.gpt2.blocks.iter().zip(caches).enumerate() {
        x = block.attend.forward(cx, &x, &packed.layout, Some(cache))?.0;
        if let (Some(cross), Some(kv)) = (model.cross.get(i), images.kvs.get(i)) {
            x = cross.forward(cx, &x, kv, &packed.cross)?.0;
        }
        x = block.mlp.forward(cx, &x)?.0;
    }
    let last: Vec<usize> = packed.layout.spans.iter().map(|s| s.q.end - 1).collect();
    let (x, _) = layernorm::forward(cx, &rows::gather(cx, &x, &last)?, &model.gpt2.final_norm)?;
    Ok(linear::forward(cx, &x, &model.gpt2.head)?.0)
}
