use serde::{Deserialize, Serialize};

/// A configuration that no Phi model can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("text config: {option} is {value}, but {rule}")]
pub struct Error {
    /// The option at fault.
    pub option: &'static str,
    /// Its value.
    pub value: String,
    /// What it must satisfy.
    pub rule: String,
}

/// Sizes of the model, named as in a `phi` configuration; what is left out is as in Phi-1.5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Share of each head that is rotated.
    pub partial_rotary_factor: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f32,
    /// The context, in tokens.
    pub max_position_embeddings: usize,
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

    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// The first option that does not.
    pub fn validate(&self) -> Result<(), Error> {
        let positive = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (option, value) in positive {
            if value == 0 {
                return Err(Error { option, value: "0".to_owned(), rule: "it must be positive".to_owned() });
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) || !self.head_dim().is_multiple_of(8) {
            let rule = format!("each of {} heads needs a multiple of 8", self.num_attention_heads);
            return Err(Error { option: "hidden_size", value: self.hidden_size.to_string(), rule });
        }
        let f = self.partial_rotary_factor;
        if !(0.0..=1.0).contains(&f) || !self.rotary_dim().is_multiple_of(2) {
            let rule = format!("it must leave an even part of a head of {}", self.head_dim());
            return Err(Error { option: "partial_rotary_factor", value: f.to_string(), rule });
        }
        for (option, value) in [("rope_theta", self.rope_theta), ("layer_norm_eps", self.layer_norm_eps)] {
            if !(value > 0.0 && value.is_finite()) {
                let rule = "it must be a positive number".to_owned();
                return Err(Error { option, value: value.to_string(), rule });
            }
        }
        Ok(())
    }
}
