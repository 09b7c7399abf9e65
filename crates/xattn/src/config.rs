//! Configuration of the connector and the cross-attention blocks, and its validation against the backbones.

use serde::{Deserialize, Serialize};

/// An invalid value in the connector configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("connector config: {option} is {value}, but {rule}")]
pub struct Error {
    /// Name of the invalid option.
    pub option: &'static str,
    /// Its value.
    pub value: usize,
    /// The condition that the value must satisfy.
    pub rule: String,
}

/// How vision and language are connected. The names are those of the released `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// 1 uses only the global image; L also uses L×L tiles of the image resized to L times the side length.
    pub level: usize,
    /// Decoder layer i is preceded by a cross-attention block if (i + 1) is a multiple of this.
    pub cross_interval: usize,
    /// Divisor of the inner widths of cross-attention and its MLP.
    pub reduce: usize,
    /// The first decoder layer that may have a cross-attention block.
    pub from_layer: usize,
    /// Whether the global image has its own LoRA adapters.
    pub first_level: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config { level: 3, cross_interval: 2, reduce: 1, from_layer: 0, first_level: true }
    }
}

/// Number of rows of the tile embedding in every checkpoint. The first 1 + [`Config::local_tiles`] are used.
pub(crate) const TILE_ROWS: usize = 21;

impl Config {
    /// Number of local tiles per image: L² from level 2 on, otherwise 0.
    pub fn local_tiles(&self) -> usize {
        if self.level > 1 { self.level * self.level } else { 0 }
    }

    /// Whether decoder layer `i` is preceded by a cross-attention block.
    pub fn has_block(&self, i: usize) -> bool {
        (i + 1).is_multiple_of(self.cross_interval) && i >= self.from_layer
    }

    /// Number of heads in cross-attention: max(text, vision) / 64.
    pub fn heads(&self, text: usize, vision: usize) -> usize {
        text.max(vision) / 64
    }

    /// Inner width of cross-attention: max(text, vision) / reduce.
    pub fn inner(&self, text: usize, vision: usize) -> usize {
        text.max(vision) / self.reduce
    }

    /// Checks that the sizes are consistent with each other and with those of the backbones.
    ///
    /// # Errors
    /// When an option is invalid; the error names the first one.
    pub fn validate(&self, text: usize, vision: usize) -> Result<(), Error> {
        let fault = |option, value, rule: &str| Err(Error { option, value, rule: rule.to_owned() });
        let widest = text.max(vision);
        if !(1..=4).contains(&self.level) {
            return fault("level", self.level, "it must be 1 to 4");
        }
        if self.cross_interval == 0 {
            return fault("cross_interval", 0, "it must be positive");
        }
        if widest == 0 || !widest.is_multiple_of(64) {
            return fault("hidden_size", widest, "the wider of text and vision must be a multiple of 64");
        }
        if ![1, 2, 4, 8].contains(&self.reduce) {
            return fault("reduce", self.reduce, "it must be 1, 2, 4 or 8");
        }
        Ok(())
    }
}
