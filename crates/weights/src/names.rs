//! Maps tensor names of a network to those of a file.

use crate::Checkpoint;

/// Maps a network's names to those of a checkpoint with other names.
///
/// The first matching prefix is replaced, then every infix is removed. The default map changes nothing, which
/// is correct for the released checkpoints, because the networks use the same names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameMap {
    prefixes: Vec<(String, String)>,
    dropped: Vec<String>,
}

impl NameMap {
    /// Also replaces the prefix `ours` by `theirs`.
    pub fn prefix(mut self, ours: &str, theirs: &str) -> NameMap {
        self.prefixes.push((ours.to_owned(), theirs.to_owned()));
        self
    }

    /// Like [`NameMap::prefix`], but takes precedence over all existing prefixes.
    pub fn first(mut self, ours: &str, theirs: &str) -> NameMap {
        self.prefixes.insert(0, (ours.to_owned(), theirs.to_owned()));
        self
    }

    /// Also removes every occurrence of `infix`.
    pub fn drop(mut self, infix: &str) -> NameMap {
        self.dropped.push(infix.to_owned());
        self
    }

    /// The map for the vision tower in `checkpoint`: the default map if its names are those of a Pheye
    /// checkpoint, otherwise [`NameMap::clip`] or [`NameMap::clip_vision`].
    pub fn of_vision(checkpoint: &Checkpoint) -> NameMap {
        match () {
            () if has(checkpoint, "vision_encoder.") => NameMap::default(),
            () if !has(checkpoint, "vision_model.") && has(checkpoint, "embeddings.patch_embedding.") => {
                NameMap::clip_vision()
            }
            () => NameMap::clip(),
        }
    }

    /// The map for the language model in `checkpoint`: the default map if its names are those of a Pheye
    /// checkpoint, otherwise [`NameMap::phi`].
    pub fn of_text(checkpoint: &Checkpoint) -> NameMap {
        if has(checkpoint, "lang_encoder.") { NameMap::default() } else { NameMap::phi() }
    }

    /// The map for a published CLIP model, without adapters: `vision_model.embeddings.…`.
    pub fn clip() -> NameMap {
        NameMap::default()
            .prefix("vision_encoder.vision_model.base_model.model.", "vision_model.")
            .drop(".base_layer")
    }

    /// The map for CLIP's vision tower alone, as transformers saves it since version 5.6, without adapters:
    /// `embeddings.…`.
    pub fn clip_vision() -> NameMap {
        NameMap::default().prefix("vision_encoder.vision_model.base_model.model.", "").drop(".base_layer")
    }

    /// The map for a published Phi model: `model.layers.N.…`.
    pub fn phi() -> NameMap {
        NameMap::default()
            .prefix("lang_encoder.old_decoder_blocks.", "model.layers.")
            .prefix("lang_encoder.model.", "model.")
            .prefix("lang_encoder.lm_head.", "lm_head.")
    }

    /// The checkpoint's name for the network's `name`.
    pub fn apply(&self, name: &str) -> String {
        let replaced = self.prefixes.iter().find_map(|(ours, theirs)| {
            let rest = name.strip_prefix(ours.as_str())?;
            Some(format!("{theirs}{rest}"))
        });
        let mapped = replaced.unwrap_or_else(|| name.to_owned());
        self.dropped.iter().fold(mapped, |n, infix| n.replace(infix, ""))
    }
}

/// Whether a name in `checkpoint` begins with `start`, possibly after a prefix that all names share.
fn has(checkpoint: &Checkpoint, start: &str) -> bool {
    checkpoint.names().any(|name| checkpoint.spellings(name).any(|name| name.starts_with(start)))
}
