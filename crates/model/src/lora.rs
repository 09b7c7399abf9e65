//! The two LoRA sets of the vision tower, by name.

use std::fmt;

use crate::{Config, Error, LoraSpec, Result};

/// One of the LoRA sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoraSet {
    /// The set for the global image.
    Global,
    /// The set for the tiles.
    Local,
}

impl LoraSet {
    /// Both sets, in the order of their adapter indices in a route.
    pub const ALL: [LoraSet; 2] = [LoraSet::Global, LoraSet::Local];

    /// The adapter's name in a checkpoint.
    pub fn adapter(self) -> &'static str {
        match self {
            LoraSet::Global => "first",
            LoraSet::Local => "second",
        }
    }

    /// The adapter index of the set in a route.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The set that the parameter `name` belongs to.
    pub fn of(name: &str) -> Option<LoraSet> {
        LoraSet::ALL.into_iter().find(|set| set.has(name))
    }

    /// Whether the parameter `name` belongs to the set.
    pub(crate) fn has(self, name: &str) -> bool {
        let part = name.rsplit_once(".lora_").map(|(_, part)| part);
        part.and_then(|part| part.split('.').nth(1)) == Some(self.adapter())
    }
}

impl fmt::Display for LoraSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LoraSet::Global => "global",
            LoraSet::Local => "local",
        })
    }
}

impl Config {
    /// Rank and scale of a set, even if the model does not have the set.
    pub fn lora(&self, set: LoraSet) -> LoraSpec {
        match set {
            LoraSet::Global => self.lora_global,
            LoraSet::Local => self.lora_local,
        }
    }

    pub(crate) fn lora_mut(&mut self, set: LoraSet) -> &mut LoraSpec {
        match set {
            LoraSet::Global => &mut self.lora_global,
            LoraSet::Local => &mut self.lora_local,
        }
    }

    /// Whether the model has the set: the global set if `connector.first_level` is true, the local set from
    /// level 2 on.
    pub fn has_lora(&self, set: LoraSet) -> bool {
        self.adapters()[set.index()].is_some()
    }

    /// Returns an error unless the model has the set.
    pub(crate) fn require(&self, set: LoraSet) -> Result<()> {
        if self.has_lora(set) { Ok(()) } else { Err(Error::NoLora { set }) }
    }
}
