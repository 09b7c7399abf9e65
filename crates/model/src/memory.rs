//! Estimates the memory of a training step from shapes alone.
//!
//! Each term is what a part of the network saves for its backward pass, in the field order of the `Saved`
//! structs of `pheye-vit`, `pheye-phi` and `pheye-xattn`. Temporaries are counted once, for the largest
//! layer.

use serde::Serialize;

use crate::{Config, Recompute, Result};

/// The size of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepShape {
    /// Images of a micro-batch.
    pub images: usize,
    /// Tokens of all its sequences.
    pub tokens: usize,
    /// The layers that are recomputed.
    pub recompute: Recompute,
    /// Bytes of an activation: 2 on a GPU, 4 on the CPU.
    pub element: usize,
}

/// Bytes by purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Frozen weights, in bf16.
    pub frozen: u64,
    /// Trained weights (f32, and bf16 copies for GEMM), their gradients and both moments.
    pub trained: u64,
    /// What the forward pass saves for the backward pass, and the scratch memory of the largest layer.
    pub activations: u64,
}

impl Memory {
    /// The sum of all parts.
    pub fn total(&self) -> u64 {
        self.frozen.saturating_add(self.trained).saturating_add(self.activations)
    }
}

fn wide(size: usize) -> u128 {
    size as u128
}

impl Config {
    /// The memory of a training step of Pheye under `load`.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn memory(&self, load: StepShape) -> Result<Memory> {
        let counts = self.counts()?;
        Ok(Memory {
            frozen: 2 * counts.frozen(),
            trained: (4 + 2 + 4 + 8) * counts.trained(),
            activations: self.activations(load),
        })
    }

    /// Peak bytes of the arena during a step, for a valid configuration.
    pub fn activations(&self, load: StepShape) -> u64 {
        // With the largest sizes and batches, the sum needs 127 bits.
        let [images, tokens, element] = [load.images, load.tokens, load.element].map(wide);
        let (v, t, recompute) = (&self.vision, &self.text, load.recompute);
        let [v_width, v_inner, v_layers, v_heads, v_tokens, patch] = [
            v.hidden_size,
            v.intermediate_size,
            v.num_hidden_layers,
            v.num_attention_heads,
            v.tokens(),
            v.patch_size,
        ]
        .map(wide);
        let [t_width, t_inner, t_heads, vocab] =
            [t.hidden_size, t.intermediate_size, t.num_attention_heads, t.vocab_size].map(wide);
        let tiles = images * wide(1 + self.connector.local_tiles());
        let rows = tiles * v_tokens;
        let again = wide(recompute.vision).min(v_layers);

        // Each row saves x, q, k, v, o, x1 and the two normalized inputs with the width of the tower, u with
        // the width of its MLP, two floats of statistics per norm and head, and S of the adapters.
        let lora = wide(self.lora_global.rank.max(self.lora_local.rank));
        let vit_row = element * (8 * v_width + v_inner + 6 * lora) + 8 * (2 + v_heads);
        // The backward pass of the MLP holds g and dg, or dg and du, or dy and dx at once.
        let vit_scratch = element * (2 * v_inner + 3 * v_width);
        let vision = rows * ((v_layers - again) * vit_row + again * element * v_width);
        let vision_layer = rows * (u128::from(again > 0) * vit_row + vit_scratch);
        let patches = tiles * (v_tokens - 1) * 3 * patch * patch * (4 + element);
        let connector = rows * (2 * element * v_width + 8);

        let inner = wide(self.connector.inner(t.hidden_size, v.hidden_size));
        let heads = wide(self.connector.heads(t.hidden_size, v.hidden_size));
        let hidden = 4 * t_width / wide(self.connector.reduce);
        let layers = t.num_hidden_layers;
        let first = (0..layers).find(|&i| self.connector.has_block(i)).unwrap_or(layers);
        let phi_row = element * (5 * t_width + t_inner) + 8 * (1 + t_heads);
        let cross_row = element * (4 * t_width + 2 * inner + 2 * hidden) + 8 * (2 + heads);
        let kv = images * wide(self.media_tokens()) * 2 * inner * element;
        let of_layer = |i: usize| match self.connector.has_block(i) {
            true => tokens * (phi_row + cross_row) + kv,
            false => tokens * phi_row,
        };
        let again = recompute.text.min(layers - first);
        let kept: u128 = (first + again..layers).map(of_layer).sum();
        let largest = (first..layers).map(of_layer).max().unwrap_or(0);
        let text = kept
            + wide(again) * tokens * element * t_width
            + u128::from(again > 0) * largest
            + kv
            + tokens * element * (2 * t_inner + 4 * t_width);
        // Logits of a chunk of rows, in f32.
        let logits = 4 * (tokens * vocab).min(1 << 21);
        // Tensors saved by the language model are freed before the backward pass reaches the tower.
        let all = vision + patches + connector + (text + logits).max(vision_layer);
        u64::try_from(all).unwrap_or(u64::MAX)
    }

    /// Settings of a training config that fit in `free` bytes, ordered by how little they recompute.
    ///
    /// # Errors
    /// When [`Config::memory`] fails.
    pub fn fitting(&self, load: StepShape, free: u64) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let (all_vision, all_text) = (self.vision.num_hidden_layers, self.text.num_hidden_layers);
        for share in [1, 2, 4, 8, 16, 32, 64] {
            let images = load.images / share;
            if images == 0 {
                break;
            }
            for (vision, text) in [(0, 0), (0, all_text), (all_vision, 0), (all_vision, all_text)] {
                let recompute = Recompute { vision, text };
                let tokens = load.tokens.div_ceil(share);
                if self.memory(StepShape { images, tokens, recompute, ..load })?.total() <= free {
                    let batch = match share {
                        1 => String::new(),
                        _ => format!("batch = {images} with accumulation × {share}, "),
                    };
                    found.push(format!("{batch}recompute = {{ vision = {vision}, text = {text} }}"));
                    break;
                }
            }
            if found.len() == 3 {
                break;
            }
        }
        Ok(found)
    }
}
