//! The tensor names of Pheye's checkpoints, of published CLIP and Phi models, and of the networks here.
//!
//! The networks use the names of Pheye's released checkpoints. A published backbone has other names, to which a
//! [`NameMap`] translates.

use pheye_tensor::DType;
use pheye_weights::{Checkpoint, CheckpointSource, NameMap};

use crate::Pheye;

/// The tensors of `checkpoint`, for a Pheye model or a part of it. `dtype` is as in [`CheckpointSource::new`].
/// Tensors that such files contain but no network uses may remain unused: duplicates of layers, and CLIP's
/// `position_ids`.
pub fn source<'a>(checkpoint: &'a Checkpoint, dtype: impl Fn(&str) -> DType + 'a) -> CheckpointSource<'a> {
    CheckpointSource::new(checkpoint, dtype)
        .allow_unused(|name| is_duplicate(name) || name.ends_with(".position_ids"))
}

/// The map for the vision tower in `checkpoint`: the default map if its names are those of a Pheye checkpoint,
/// otherwise [`clip`] or [`clip_vision`].
pub fn of_vision(checkpoint: &Checkpoint) -> NameMap {
    of_vision_at(checkpoint, TOWER)
}

/// [`of_vision`] for a tower that the network has at `ours` instead of Pheye's place, such as `encoder.`.
pub fn of_vision_at(checkpoint: &Checkpoint, ours: &str) -> NameMap {
    let has = |start| checkpoint.has_prefix(start);
    let (theirs, plain) = match () {
        () if has("vision_encoder.") => (TOWER, false),
        () if !has("vision_model.") && has("embeddings.patch_embedding.") => ("", true),
        () => ("vision_model.", true),
    };
    let map = if ours == theirs { NameMap::default() } else { NameMap::default().prefix(ours, theirs) };
    if plain { map.drop(".base_layer") } else { map }
}

/// The tower's prefix in a Pheye checkpoint.
const TOWER: &str = "vision_encoder.vision_model.base_model.model.";

/// The map for the language model in `checkpoint`: the default map if its names are those of a Pheye
/// checkpoint, otherwise [`phi`].
pub fn of_text(checkpoint: &Checkpoint) -> NameMap {
    if checkpoint.has_prefix("lang_encoder.") { NameMap::default() } else { phi() }
}

/// The map for a published CLIP model, without adapters: `vision_model.embeddings.…`.
pub fn clip() -> NameMap {
    NameMap::default().prefix(TOWER, "vision_model.").drop(".base_layer")
}

/// The map for CLIP's vision tower alone, as transformers saves it since version 5.6, without adapters:
/// `embeddings.…`.
pub fn clip_vision() -> NameMap {
    NameMap::default().prefix(TOWER, "").drop(".base_layer")
}

/// The map for a published Phi model: `model.layers.N.…`.
pub fn phi() -> NameMap {
    NameMap::default()
        .prefix("lang_encoder.old_decoder_blocks.", "model.layers.")
        .prefix("lang_encoder.model.", "model.")
        .prefix("lang_encoder.lm_head.", "lm_head.")
}

/// Whether this tensor of a complete CLIP or Pheye model is outside its vision tower. The LoRA sets of a Pheye model
/// count as outside.
pub fn beside_tower(name: &str) -> bool {
    name.starts_with("text_model.")
        || ["logit_scale", "text_projection.weight", "visual_projection.weight"].contains(&name)
        || Pheye::is_pheye_param(name)
        || name.starts_with("lang_encoder.")
}

/// Whether this tensor of a complete Pheye model is outside its language model, as cross-attention is.
pub fn beside_text(name: &str) -> bool {
    name.starts_with("vision_encoder.") || Pheye::is_pheye_param(name)
}

/// Whether a name is a duplicate in a released checkpoint. These contain each decoder layer and
/// cross-attention layer twice, the second time as part of the layer that wraps both.
fn is_duplicate(name: &str) -> bool {
    let wrapped = || {
        let (index, rest) = name.strip_prefix("lang_encoder.model.layers.")?.split_once('.')?;
        let part = rest.split('.').next()?;
        Some(index.parse::<u32>().is_ok() && matches!(part, "decoder_layer" | "cross_attn_layer"))
    };
    wrapped() == Some(true)
}
