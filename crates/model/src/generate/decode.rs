//! Incremental decoding: cache slots, each holding a text about an image, that grow by tokens.
//!
//! Image keys and values are one tensor for all slots; slots about the same image share its rows through the
//! spans.

use std::ops::Range;

use pheye_ops::attention::Span;
use pheye_ops::{Cx, Graphs, embedding, layernorm, linear, rows};
use pheye_phi::{Cache, Layout};
use pheye_tensor::Tensor;

use crate::loss::cross_spans;
use crate::{Pheye, Result};

/// Texts that are read, token by token.
pub(super) struct Decoder<'a> {
    model: &'a Pheye,
    cx: &'a Cx,
    kvs: &'a [Option<Tensor>],
    /// The image of each slot, ascending.
    picture: Vec<usize>,
    /// Tokens of each slot in the caches.
    past: Vec<usize>,
    /// Tokens that the caches can hold of each slot.
    capacity: usize,
    caches: Vec<Cache>,
    graphs: Graphs,
}

impl<'a> Decoder<'a> {
    /// Empty slots about `picture`, with room for `capacity` tokens each.
    pub(super) fn new(
        model: &'a Pheye,
        cx: &'a Cx,
        kvs: &'a [Option<Tensor>],
        picture: Vec<usize>,
        capacity: usize,
    ) -> Result<Decoder<'a>> {
        let new = |_| Cache::new(cx, &model.config.text, picture.len(), capacity);
        let caches = (0..model.phi.blocks.len()).map(new).collect::<Result<Vec<_>, _>>()?;
        let past = vec![0; picture.len()];
        Ok(Decoder { model, cx, kvs, picture, past, capacity, caches, graphs: Graphs::default() })
    }

    /// Logits [slots with new tokens, vocab_size] after the last of `feed[slot]`, for those that have new tokens.
    pub(super) fn step(&mut self, feed: &[Vec<u32>]) -> Result<Tensor> {
        let new: Vec<usize> = feed.iter().map(Vec::len).collect();
        let layout = Layout::cached(&self.past, &new, self.capacity);
        let spans = cross_spans(&new, &self.picture, self.model.config.media_tokens());
        let ids = feed.concat();
        let Decoder { model, cx, kvs, caches, graphs, .. } = self;
        let mut forward = |cx: &Cx| forward(model, cx, &ids, (&layout, &spans), kvs, caches);
        // Prompts are read once; after that all steps have the same shape.
        let logits = if ids.len() <= feed.len() { cx.replay(graphs, forward)? } else { forward(cx)? };
        self.past.iter_mut().zip(new).for_each(|(past, new)| *past += new);
        Ok(logits)
    }

    /// Copies tokens of slots to other slots, which then hold as many as those they come from.
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

    /// Tokens that `slot` holds.
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
