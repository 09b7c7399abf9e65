//! Configuration of a Phi model, and its validation.

use serde::{Deserialize, Serialize};

/// An invalid value in the configuration of a Phi model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("text config: {option} is {value}, but {rule}")]
pub struct Error {
    /// Name of the invalid option.
    pub option: &'static str,
    /// Its value.
    pub value: String,
    /// The condition that the value must satisfy.
    pub rule: String,
}

/// Configuration of the model, with the names of a `phi` configuration. Missing options have the values of
/// Phi-1.5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream, d.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Fraction of each head's dimensions that is rotated.
    pub partial_rotary_factor: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Divisor of rotary positions (linear scaling). It is 1 in Phi-1.5 and is omitted from the file then.
    #[serde(skip_serializing_if = "is_one")]
    pub rope_factor: f32,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f32,
    /// Context length in tokens.
    pub max_position_embeddings: usize,
}

/// An upper limit on the number of layers, above that of every published model.
const LAYERS: usize = 1 << 10;
const WIDTH: usize = 1 << 16;
const MLP_WIDTH: usize = 1 << 20;
const VOCABULARY: usize = 1 << 24;
const CONTEXT: usize = 1 << 20;
/// An upper limit on the elements of the rotary tables, which are allocated for every data type of the weights: 256
/// MiB.
const ROTARY_TABLES: usize = 1 << 26;

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it so
fn is_one(factor: &f32) -> bool {
    *factor == 1.0
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 51200,
            hidden_size: 2048,
            intermediate_size: 8192,
            num_hidden_layers: 24,
            num_attention_heads: 32,
            partial_rotary_factor: 0.5,
            rope_theta: 10000.0,
            rope_factor: 1.0,
            layer_norm_eps: 1e-5,
            max_position_embeddings: 2048,
        }
    }
}

impl Config {
    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Rotated columns of each head.
    pub fn rotary_dim(&self) -> usize {
        (self.head_dim() as f32 * self.partial_rotary_factor) as usize
    }

    /// Checks that the sizes are within their limits and consistent with each other, so that no product of them
    /// overflows.
    ///
    /// # Errors
    /// When an option is invalid; the error names the first one.
    pub fn validate(&self) -> Result<(), Error> {
        let fault = |option, value: String, rule: String| Err(Error { option, value, rule });
        let sizes = [
            ("vocab_size", self.vocab_size, VOCABULARY),
            ("hidden_size", self.hidden_size, WIDTH),
            ("intermediate_size", self.intermediate_size, MLP_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("num_attention_heads", self.num_attention_heads, WIDTH),
            ("max_position_embeddings", self.max_position_embeddings, CONTEXT),
        ];
        for (option, value, most) in sizes {
            if value == 0 {
                return fault(option, "0".to_owned(), "it must be positive".to_owned());
            }
            if value > most {
                return fault(option, value.to_string(), format!("it must be at most {most}"));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) || !self.head_dim().is_multiple_of(8) {
            let rule = format!("each of {} heads needs a multiple of 8", self.num_attention_heads);
            return fault("hidden_size", self.hidden_size.to_string(), rule);
        }
        let f = self.partial_rotary_factor;
        if !(0.0..=1.0).contains(&f) || !self.rotary_dim().is_multiple_of(2) {
            let rule = format!("it must leave an even part of a head of {}", self.head_dim());
            return fault("partial_rotary_factor", f.to_string(), rule);
        }
        if self.max_position_embeddings * self.rotary_dim() > ROTARY_TABLES {
            let most = ROTARY_TABLES / self.rotary_dim();
            let rule = format!("it must be at most {most} where {} columns turn", self.rotary_dim());
            return fault("max_position_embeddings", self.max_position_embeddings.to_string(), rule);
        }
        let numbers = [
            ("rope_theta", self.rope_theta),
            ("rope_factor", self.rope_factor),
            ("layer_norm_eps", self.layer_norm_eps),
        ];
        for (option, value) in numbers {
            if !(value > 0.0 && value.is_finite()) {
                return fault(option, value.to_string(), "it must be a positive number".to_owned());
            }
        }
        Ok(())
    }
}
