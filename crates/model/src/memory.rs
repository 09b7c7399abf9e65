//! How much memory a step of training takes, from the shapes alone.
//!
//! Each term is what a part of the network saves for backward (see the `Saved` of `pheye-vit`, `pheye-phi`, `pheye-xattn`), in the
//! order of their fields. What lives for a moment only is counted once, for the largest layer.

use serde::Serialize;

use crate::{Config, Recompute, Result};

/// What a step is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Pictures of a micro-batch.
    pub pictures: usize,
    /// Tokens of all its sequences.
    pub tokens: usize,
    /// Layers computed again.
    pub recompute: Recompute,
    /// Bytes of an activation: 2 on a GPU, 4 on the CPU.
    pub element: usize,
}

/// Bytes by purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Frozen weights, in bf16.
    pub frozen: u64,
    /// Trained weights (f32, and bf16 for products), their gradients and both moments.
    pub trained: u64,
    /// What forward saves for backward, and the largest layer's scratch.
    pub activations: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.frozen + self.trained + self.activations
    }
}

impl Config {
    /// The memory of a training step of Pheye under `load`.
    ///
    /// # Errors
    /// A configuration that no model can have.
    pub fn memory(&self, load: Load) -> Result<Memory> {
        let counts = self.counts()?;
        Ok(Memory {
            frozen: 2 * counts.frozen(),
            trained: (4 + 2 + 4 + 8) * counts.trained(),
            activations: self.activations(load),
        })
    }

    /// Bytes of the arena at the peak of a step.
    pub fn activations(&self, load: Load) -> u64 {
        let Load { pictures, tokens, recompute, element } = load;
        let (v, t) = (&self.vision, &self.text);
        let tiles = pictures * (1 + self.connector.local_tiles());
        let rows = tiles * v.tokens();
        let again = recompute.vision.min(v.num_hidden_layers);

        // Of a row: x, q, k, v, o, x1 and the two normed inputs are as wide as the tower, u as its MLP; statistics of two norms and of
        // each head are two floats each; S of seven modules.
        let lora = self.lora_global.rank.max(self.lora_local.rank);
        let vit_row =
            element * (8 * v.hidden_size + v.intermediate_size + 6 * lora) + 8 * (2 + v.num_attention_heads);
        // Backward of the MLP holds g and dg, or dg and du, dy and dx at once.
        let vit_scratch = element * (2 * v.intermediate_size + 3 * v.hidden_size);
        let vision = rows * ((v.num_hidden_layers - again) * vit_row + again * element * v.hidden_size);
        let vision_layer = rows * (usize::from(again > 0) * vit_row + vit_scratch);
        let patches = tiles * (v.tokens() - 1) * 3 * v.patch_size * v.patch_size * (4 + element);
        let connector = rows * (2 * element * v.hidden_size + 8);

        let (inner, heads) = (
            self.connector.inner(t.hidden_size, v.hidden_size),
            self.connector.heads(t.hidden_size, v.hidden_size),
        );
        let hidden = 4 * t.hidden_size / self.connector.reduce;
        let layers = t.num_hidden_layers;
        let first = (0..layers).find(|&i| self.connector.has_block(i)).unwrap_or(layers);
        let phi_row = element * (5 * t.hidden_size + t.intermediate_size) + 8 * (1 + t.num_attention_heads);
        let cross_row = element * (4 * t.hidden_size + 2 * inner + 2 * hidden) + 8 * (2 + heads);
        let kv = pictures * self.media_tokens() * 2 * inner * element;
        let of_layer = |i: usize| match self.connector.has_block(i) {
            true => tokens * (phi_row + cross_row) + kv,
            false => tokens * phi_row,
        };
        let again = recompute.text.min(layers - first);
        let kept: usize = (first + again..layers).map(of_layer).sum();
        let largest = (first..layers).map(of_layer).max().unwrap_or(0);
        let text = kept
            + again * tokens * element * t.hidden_size
            + usize::from(again > 0) * largest
            + kv
            + tokens * element * (2 * t.intermediate_size + 4 * t.hidden_size);
        // Logits of a chunk of rows, in f32.
        let logits = 4 * (tokens * t.vocab_size).min(1 << 21);
        // What the language model saved is gone when backward comes to the tower.
        (vision + patches + connector + (text + logits).max(vision_layer)) as u64
    }

    /// Ways to take no more than `free` bytes, as settings of a training config: what recomputes least comes first.
    ///
    /// # Errors
    /// As [`Config::memory`].
    pub fn fitting(&self, load: Load, free: u64) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let (all_vision, all_text) = (self.vision.num_hidden_layers, self.text.num_hidden_layers);
        for share in [1, 2, 4, 8, 16, 32, 64] {
            let pictures = load.pictures / share;
            if pictures == 0 {
                break;
            }
            for (vision, text) in [(0, 0), (0, all_text), (all_vision, 0), (all_vision, all_text)] {
                let recompute = Recompute { vision, text };
                let tokens = load.tokens.div_ceil(share);
                if self.memory(Load { pictures, tokens, recompute, ..load })?.total() <= free {
                    let batch = match share {
                        1 => String::new(),
                        _ => format!("batch = {pictures} with accumulation × {share}, "),
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
