//! Finds the file with the weights in the folder of a model, by the names that published models use.

use std::path::{Path, PathBuf};

/// The files that contain or list all weights of a model, the preferred first: one file, or an index of
/// shards.
pub const FOLDER_FILES: &[&str] = &[
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The first of `names` that exists in `folder`. A symbolic link counts even if its target is missing, so
/// that opening it reports the missing file.
pub fn first_in(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| folder.join(name)).find(|file| file.symlink_metadata().is_ok())
}
