//! Floating-point operations of a training step, counted from shapes alone.
//!
//! A multiplication and an addition count as two operations. Only GEMM and attention are counted; all other
//! operations together take less than one percent of them.

use serde::Serialize;

use crate::{Config, StepShape};

/// Operations of one forward and backward pass, by part of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Flops {
    /// The vision tower with its adapters.
    pub vision: Passes,
    /// Keys and values of the image tokens, in all cross-attention blocks.
    pub cross_kv: Passes,
    /// The rest of the cross-attention blocks.
    pub cross_attention: Passes,
    /// The language model with its output head.
    pub text: Passes,
}

/// Operations of a forward and a backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Passes {
    /// Operations of the forward pass.
    pub forward: u64,
    /// Operations of the backward pass, without recomputation.
    pub backward: u64,
}

/// Which parts have trained weights besides the adapters, so that backward computes their gradients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrainedParts {
    /// The adapters of the vision tower or the connector, without which backward ends at the image tokens.
    pub adapters: bool,
    /// The weights of the vision tower.
    pub vision: bool,
    /// The cross-attention blocks.
    pub cross_attention: bool,
    /// The weights of the language model.
    pub text: bool,
}

impl TrainedParts {
    /// What Pheye trains: adapters, connector and cross-attention.
    pub const PHEYE: TrainedParts =
        TrainedParts { adapters: true, vision: false, cross_attention: true, text: false };
}

impl Flops {
    /// The operations of both passes.
    pub fn total(&self) -> u64 {
        let parts = [self.vision, self.cross_kv, self.cross_attention, self.text];
        parts.iter().fold(0, |sum, part| sum.saturating_add(part.forward).saturating_add(part.backward))
    }

    /// The operations of `n` such passes.
    pub fn times(&self, n: u64) -> Flops {
        let of = |part: Passes| Passes {
            forward: part.forward.saturating_mul(n),
            backward: part.backward.saturating_mul(n),
        };
        let Flops { vision, cross_kv, cross_attention, text } = *self;
        let [vision, cross_kv, cross_attention, text] = [vision, cross_kv, cross_attention, text].map(of);
        Flops { vision, cross_kv, cross_attention, text }
    }
}

/// The operations of GEMM and attention apart, because their backward passes cost differently.
#[derive(Clone, Copy, Default)]
struct Work {
    /// GEMM with frozen or trained weights.
    gemm: u128,
    /// GEMM of the adapters.
    lora: u128,
    /// Attention: scores, and weighted sums of values.
    attention: u128,
}

impl Work {
    /// The backward pass computes the gradient of the input with one GEMM of the same size, and that of
    /// trained weights with another. Backward of attention recomputes the scores and takes four more products
    /// of the same size, against two in forward.
    fn passes(self, input: bool, weights: bool) -> Passes {
        let Work { gemm, lora, attention } = self;
        let weights = if weights { gemm } else { 0 };
        let backward = if input { gemm + weights + 2 * lora + attention * 5 / 2 } else { weights };
        let narrow = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
        Passes { forward: narrow(gemm + lora + attention), backward: narrow(backward) }
    }
}

fn wide(size: usize) -> u128 {
    size as u128
}

impl Config {
    /// The operations of one forward and backward pass of a micro-batch of shape `load`, in which `trained`
    /// has gradients, for a valid configuration. Sequences are taken to have equal lengths.
    pub fn flops(&self, load: StepShape, trained: TrainedParts) -> Flops {
        let to_vision = trained.adapters || trained.vision;
        let cross = trained.cross_attention;
        let text_input = cross || to_vision || trained.text;
        let kv = Work { gemm: self.cross_kv_work(load), ..Work::default() };
        Flops {
            vision: self.vision_work(load).passes(to_vision, trained.vision),
            cross_kv: kv.passes(to_vision, cross),
            cross_attention: self.cross_work(load).passes(text_input, cross),
            text: self.text_passes(load, text_input, trained.text),
        }
    }

    fn vision_work(&self, load: StepShape) -> Work {
        let v = &self.vision;
        let [width, inner, layers, tokens, patch] =
            [v.hidden_size, v.intermediate_size, v.num_hidden_layers, v.tokens(), v.patch_size].map(wide);
        let images = wide(load.images);
        let (global, local) = (images, images * wide(self.connector.local_tiles()));
        let tiles = global + local;
        let rows = tiles * tokens;
        let pixels = 3 * patch * patch;
        let [first, second] = self.adapters().map(|set| set.map_or(0, |set| wide(set.rank)));
        // Rows times rank, over both sets.
        let ranks = tokens * (global * first + local * second);
        let patch_ranks = (tokens - 1) * (global * first + local * second);
        Work {
            gemm: 2 * rows * layers * (4 * width * width + 2 * width * inner)
                + 2 * tiles * (tokens - 1) * pixels * width,
            lora: 2 * ranks * layers * (8 * width + 2 * (width + inner)) + 2 * patch_ranks * (pixels + width),
            attention: 4 * rows * tokens * width * layers,
        }
    }

    fn cross_kv_work(&self, load: StepShape) -> u128 {
        let (t, v) = (self.text.hidden_size, self.vision.hidden_size);
        let inner = wide(self.connector.inner(t, v));
        2 * wide(self.cross_blocks()) * wide(load.images) * wide(self.media_tokens()) * wide(v) * 2 * inner
    }

    fn cross_work(&self, load: StepShape) -> Work {
        let width = wide(self.text.hidden_size);
        let inner = wide(self.connector.inner(self.text.hidden_size, self.vision.hidden_size));
        let hidden = 4 * width / wide(self.connector.reduce.max(1));
        let rows = wide(self.cross_blocks()) * wide(load.tokens);
        Work {
            gemm: 2 * rows * (2 * width * inner + 2 * width * hidden),
            lora: 0,
            attention: 4 * rows * wide(self.media_tokens()) * inner,
        }
    }

    fn text_passes(&self, load: StepShape, input: bool, weights: bool) -> Passes {
        let t = &self.text;
        let [width, inner, layers, vocab] =
            [t.hidden_size, t.intermediate_size, t.num_hidden_layers, t.vocab_size].map(wide);
        let tokens = wide(load.tokens);
        let length = tokens / wide(load.images.max(1));
        // A causal row sees half of its sequence on average.
        let layer = Work {
            gemm: 2 * tokens * (4 * width * width + 2 * width * inner),
            lora: 0,
            attention: 2 * tokens * (length + 1) * width,
        };
        let times = |work: Work, n: u128| Work { gemm: work.gemm * n, attention: work.attention * n, ..work };
        // Without trained weights below, backward ends at the first cross-attention block.
        let first = (0..t.num_hidden_layers).find(|&i| self.connector.has_block(i)).map_or(layers, wide);
        let below = times(layer, first).passes(weights, weights);
        let above = times(layer, layers - first).passes(input, weights);
        let head = Work { gemm: 2 * tokens * width * vocab, ..Work::default() }.passes(input, weights);
        let sum =
            |part: fn(Passes) -> u64| [below, above, head].map(part).into_iter().fold(0, u64::saturating_add);
        Passes { forward: sum(|p| p.forward), backward: sum(|p| p.backward) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recompute;

    /// The counts of the published sizes, with the formulas written out by hand.
    #[test]
    fn counts_of_x4_672() {
        let config = Config::preset("x4-672").unwrap();
        let load = StepShape { images: 1, tokens: 100, recompute: Recompute::default(), element: 2 };
        let flops = config.flops(load, TrainedParts::PHEYE);
        let rows = 2570.0;
        let gemm = 2.0 * rows * 32.0 * (4.0 * 1280.0 * 1280.0 + 2.0 * 1280.0 * 5120.0)
            + 2.0 * 2560.0 * 588.0 * 1280.0;
        let lora =
            2.0 * rows * 8.0 * 32.0 * (8.0 * 1280.0 + 2.0 * 6400.0) + 2.0 * 2560.0 * 8.0 * (588.0 + 1280.0);
        let attention = 4.0 * rows * 257.0 * 1280.0 * 32.0;
        assert_eq!(flops.vision.forward as f64, gemm + lora + attention);
        assert_eq!(flops.vision.backward as f64, gemm + 2.0 * lora + 2.5 * attention);
        let kv = 6.0 * 2.0 * rows * 1280.0 * 4096.0;
        assert_eq!(flops.cross_kv.forward as f64, kv);
        assert_eq!(flops.cross_kv.backward as f64, 2.0 * kv);
        // Three of 24 layers lie below the first block.
        let layer = 2.0 * 100.0 * (4.0 * 2048.0 * 2048.0 + 2.0 * 2048.0 * 8192.0);
        let causal = 2.0 * 100.0 * 101.0 * 2048.0;
        let head = 2.0 * 100.0 * 2048.0 * 51200.0;
        assert_eq!(flops.text.forward as f64, 24.0 * (layer + causal) + head);
        assert_eq!(flops.text.backward as f64, 21.0 * (layer + 2.5 * causal) + head);
    }

    /// Without anything trained before the language model, backward costs nothing there.
    #[test]
    fn frozen_parts_have_no_backward_pass() {
        let config = Config::preset("nano").unwrap();
        let load = StepShape { images: 4, tokens: 80, recompute: Recompute::default(), element: 4 };
        let parts = TrainedParts { cross_attention: true, ..TrainedParts::default() };
        let flops = config.flops(load, parts);
        assert_eq!(flops.vision.backward, 0);
        assert_eq!(flops.cross_kv.backward, flops.cross_kv.forward);
        let all = TrainedParts { adapters: true, vision: true, cross_attention: true, text: true };
        let everything = config.flops(load, all);
        assert!(everything.total() > config.flops(load, TrainedParts::PHEYE).total());
        assert_eq!(everything.vision.forward, flops.vision.forward);
    }
}
