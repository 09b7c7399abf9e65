//! Sizes of the connector and of the cross-attention blocks, and whether they fit the backbones.

use serde::{Deserialize, Serialize};

/// A configuration that no Pheye can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("connector config: {option} is {value}, but {rule}")]
pub struct Error {
    /// The option at fault.
    pub option: &'static str,
    /// Its value.
    pub value: usize,
    /// What it must satisfy.
    pub rule: String,
}

/// How vision and language are joined; names as in the released `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// 1: the global image alone; L: also L×L tiles of an image L times as large.
    pub level: usize,
    /// A cross-attention block before decoder layer i where (i + 1) is a multiple of this.
    pub cross_interval: usize,
    /// Divides the inner widths of cross-attention and its MLP.
    pub reduce: usize,
    /// No cross-attention before this decoder layer.
    pub from_layer: usize,
    /// Whether the global image has LoRA adapters of its own.
    pub first_level: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config { level: 3, cross_interval: 2, reduce: 1, from_layer: 0, first_level: true }
    }
}

/// Rows of the tile embedding in every checkpoint; the first 1 + L² are used.
pub(crate) const TILE_ROWS: usize = 21;

impl Config {
    /// Local tiles: L² from level 2 on.
    pub fn local_tiles(&self) -> usize {
        if self.level > 1 { self.level * self.level } else { 0 }
    }

    /// Whether decoder layer `i` has a cross-attention block before it.
    pub fn has_block(&self, i: usize) -> bool {
        (i + 1).is_multiple_of(self.cross_interval) && i >= self.from_layer
    }

    /// Heads of cross-attention: max(text, vision) / 64.
    pub fn heads(&self, text: usize, vision: usize) -> usize {
        text.max(vision) / 64
    }

    /// Inner width of cross-attention: max(text, vision) / reduce.
    pub fn inner(&self, text: usize, vision: usize) -> usize {
        text.max(vision) / self.reduce
    }

    /// Checks that the sizes fit each other and those of the backbones.
    ///
    /// # Errors
    /// The first option that does not.
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
