//! Incremental decoding with a key/value cache. Each slot of the cache holds one text about an image.
//!
//! The keys and values of the images are one tensor for all slots; slots about the same image share its rows
//! through the spans.

use std::ops::Range;

use pheye_ops::attention::Span;
use pheye_ops::{Cx, Graphs, embedding, layernorm, linear, rows};
use pheye_phi::{Cache, Layout};
use pheye_tensor::Tensor;

use crate::loss::cross_spans;
use crate::{Pheye, Result};

/// The key/value caches of several texts, and the step that appends tokens to them.
pub(super) struct Decoder<'a> {
    model: &'a Pheye,
    cx: &'a Cx,
    kvs: &'a [Option<Tensor>],
    /// The image of each slot, ascending.
    image: Vec<usize>,
    /// Number of tokens in the cache of each slot.
    past: Vec<usize>,
    /// Number of tokens that the cache of each slot can hold.
    capacity: usize,
    caches: Vec<Cache>,
    graphs: Graphs,
}

impl<'a> Decoder<'a> {
    /// Empty slots, with room for `capacity` tokens each; `image` is the image index of each slot.
    pub(super) fn new(
        model: &'a Pheye,
        cx: &'a Cx,
        kvs: &'a [Option<Tensor>],
        image: Vec<usize>,
        capacity: usize,
    ) -> Result<Decoder<'a>> {
        let new = |_| Cache::new(cx, image.len(), capacity, model.config.text.hidden_size);
        let caches = (0..model.phi.blocks.len()).map(new).collect::<Result<Vec<_>, _>>()?;
        let past = vec![0; image.len()];
        Ok(Decoder { model, cx, kvs, image, past, capacity, caches, graphs: Graphs::default() })
    }

    /// Appends the tokens `feed[slot]` to each slot. Returns the logits `[slots with new tokens, vocab_size]`
    /// after the last of them.
    pub(super) fn step(&mut self, feed: &[Vec<u32>]) -> Result<Tensor> {
        let new: Vec<usize> = feed.iter().map(Vec::len).collect();
        let layout = Layout::cached(&self.past, &new, self.capacity);
        let spans = cross_spans(&new, &self.image, self.model.config.media_tokens());
        let ids = feed.concat();
        let Decoder { model, cx, kvs, caches, graphs, .. } = self;
        let mut forward = |cx: &Cx| forward(model, cx, &ids, (&layout, &spans), kvs, caches);
        // Only prefill has several tokens per slot; all decoding steps have the same shape and are replayed
        // as a CUDA graph.
        let logits = if ids.len() <= feed.len() { cx.replay(graphs, forward)? } else { forward(cx)? };
        self.past.iter_mut().zip(new).for_each(|(past, new)| *past += new);
        Ok(logits)
    }

    /// Copies the keys and values of a range of tokens from one slot to another, which then ends after that
    /// range.
    pub(super) fn copy(&mut self, copies: &[(usize, usize, Range<usize>)]) -> Result<()> {
        let rows = |slot: usize, tokens: &Range<usize>| {
            let base = slot * self.capacity;
            base + tokens.start..base + tokens.end
        };
        let from: Vec<usize> = copies.iter().flat_map(|(from, _, tokens)| rows(*from, tokens)).collect();
        let to: Vec<usize> = copies.iter().flat_map(|(_, to, tokens)| rows(*to, tokens)).collect();
        if !from.is_empty() {
            self.caches.iter_mut().try_for_each(|cache| cache.copy(self.cx, &from, &to))?;
        }
        copies.iter().for_each(|(_, to, tokens)| self.past[*to] = tokens.end);
        Ok(())
    }

    /// Number of tokens in the cache of `slot`.
    pub(super) fn past(&self, slot: usize) -> usize {
        self.past[slot]
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
