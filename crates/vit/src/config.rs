//! Configuration of a CLIP vision transformer, and its validation.

use pheye_tensor::Shape;
use serde::{Deserialize, Serialize};

/// An invalid value in the configuration of a vision transformer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("vision config: {option} is {value}, but {rule}")]
pub struct Error {
    /// Name of the invalid option.
    pub option: &'static str,
    /// Its value.
    pub value: String,
    /// The condition that the value must satisfy.
    pub rule: String,
}

/// The activation between the two layers of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    /// x·σ(1.702x), used by the weights of OpenAI and DFN.
    QuickGelu,
    /// x·Φ(x).
    Gelu,
}

/// Configuration of the tower, with the names of a `clip_vision_model` configuration. Missing options have
/// CLIP's defaults (B-32).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Width of the residual stream, d.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Side length of a tile in pixels.
    pub image_size: usize,
    /// Side length of a patch in pixels.
    pub patch_size: usize,
    /// Activation of the MLP.
    pub hidden_act: HiddenAct,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f32,
}

/// An upper limit on the number of layers, above that of every published model.
const LAYERS: usize = 1 << 10;
const WIDTH: usize = 1 << 16;
const MLP_WIDTH: usize = 1 << 20;
/// An upper limit on the side length of a tile in pixels.
const SIDE: usize = 1 << 12;

impl Default for Config {
    fn default() -> Config {
        Config {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            hidden_act: HiddenAct::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl Config {
    /// ViT-H-14 with quick-GELU, as used by the DFN-5B weights.
    pub fn h14() -> Config {
        Config {
            hidden_size: 1280,
            intermediate_size: 5120,
            num_hidden_layers: 32,
            num_attention_heads: 16,
            image_size: 224,
            patch_size: 14,
            hidden_act: HiddenAct::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }

    /// Tokens per tile: its patches and the class token.
    pub fn tokens(&self) -> usize {
        (self.image_size / self.patch_size).pow(2) + 1
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Checks that the sizes are within their limits and consistent with each other, so that no product of them
    /// overflows.
    ///
    /// # Errors
    /// When an option is invalid; the error names the first one.
    pub fn validate(&self) -> Result<(), Error> {
        let sizes = [
            ("hidden_size", self.hidden_size, WIDTH),
            ("intermediate_size", self.intermediate_size, MLP_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("num_attention_heads", self.num_attention_heads, WIDTH),
            ("image_size", self.image_size, SIDE),
            ("patch_size", self.patch_size, SIDE),
        ];
        for (option, value, most) in sizes {
            if value == 0 {
                return Err(Error { option, value: "0".to_owned(), rule: "it must be positive".to_owned() });
            }
            if value > most {
                let rule = format!("it must be at most {most}");
                return Err(Error { option, value: value.to_string(), rule });
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) || !self.head_dim().is_multiple_of(8) {
            let rule = format!("each of {} heads needs a multiple of 8", self.num_attention_heads);
            return Err(Error { option: "hidden_size", value: self.hidden_size.to_string(), rule });
        }
        if !self.image_size.is_multiple_of(self.patch_size) {
            let rule = format!("it must be a multiple of the patch size {}", self.patch_size);
            return Err(Error { option: "image_size", value: self.image_size.to_string(), rule });
        }
        let eps = self.layer_norm_eps;
        if !(eps > 0.0 && eps.is_finite()) {
            let rule = "it must be a positive number".to_owned();
            return Err(Error { option: "layer_norm_eps", value: eps.to_string(), rule });
        }
        Ok(())
    }
}

/// A set of LoRA adapters: its name in the checkpoint, rank and scale.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterSpec {
    /// Name in the checkpoint: `first` or `second` in the released checkpoints.
    pub name: String,
    /// Rank r, used if the checkpoint does not determine it.
    pub rank: usize,
    /// α, or `None` for 2r.
    pub alpha: Option<f32>,
}

impl AdapterSpec {
    /// The maximum rank: the width of the widest tower.
    pub const MOST: usize = WIDTH;

    /// The rank of a stored A with shape [r, …], or `None` if no adapter can have that shape.
    pub fn rank_of(a: Shape) -> Option<usize> {
        a.dims().first().copied().filter(|rank| (1..=AdapterSpec::MOST).contains(rank))
    }
}
