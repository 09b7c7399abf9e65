//! Which file of a folder holds its weights, by the names that published folders use.

use std::path::{Path, PathBuf};

/// Files that hold all weights of a model's folder, whole or as an index of shards, the preferred first.
pub const FOLDER_FILES: &[&str] = &[
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The first of `names` that is in `folder`. A link counts whatever it leads to: opening it says what is missing.
pub fn first_in(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| folder.join(name)).find(|file| file.symlink_metadata().is_ok())
}
