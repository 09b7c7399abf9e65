//! Configuration of a GPT-2 model, and its validation.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Configuration of the model, with the names of a `gpt2` configuration. Missing options have the values of the
/// smallest published model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Context length in tokens.
    pub n_positions: usize,
    /// Width of the residual stream, d.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Number of attention heads.
    pub n_head: usize,
    /// Width of the MLP; 4 d if there is none.
    pub n_inner: Option<usize>,
    /// ε of every LayerNorm.
    pub layer_norm_epsilon: f32,
}

/// An upper limit on the number of layers, above that of every published model.
const LAYERS: usize = 1 << 10;
const WIDTH: usize = 1 << 16;
const MLP_WIDTH: usize = 1 << 20;
const VOCABULARY: usize = 1 << 24;
const CONTEXT: usize = 1 << 20;

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            layer_norm_epsilon: 1e-5,
        }
    }
}

impl Config {
    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Width of the MLP.
    pub fn inner(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }

    /// Checks that the sizes are within their limits and consistent with each other, so that no product of them
    /// overflows.
    ///
    /// # Errors
    /// [`Error::Config`] when an option is invalid; the error names the first one.
    pub fn validate(&self) -> Result<()> {
        let fault = |option, value: String, rule: String| Err(Error::Config { option, value, rule });
        let sizes = [
            ("vocab_size", self.vocab_size, VOCABULARY),
            ("n_positions", self.n_positions, CONTEXT),
            ("n_embd", self.n_embd, WIDTH),
            ("n_layer", self.n_layer, LAYERS),
            ("n_head", self.n_head, WIDTH),
            ("n_inner", self.n_inner.unwrap_or(1), MLP_WIDTH),
        ];
        for (option, value, most) in sizes {
            if value == 0 {
                return fault(option, "0".to_owned(), "it must be positive".to_owned());
            }
            if value > most {
                return fault(option, value.to_string(), format!("it must be at most {most}"));
            }
        }
        if !self.n_embd.is_multiple_of(self.n_head) || !self.head_dim().is_multiple_of(8) {
            let rule = format!("each of {} heads needs a multiple of 8", self.n_head);
            return fault("n_embd", self.n_embd.to_string(), rule);
        }
        let eps = self.layer_norm_epsilon;
        if !(eps > 0.0 && eps.is_finite()) {
            return fault("layer_norm_epsilon", eps.to_string(), "it must be a positive number".to_owned());
        }
        Ok(())
    }
}
