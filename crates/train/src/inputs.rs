//! Checksums of the files that a run reads. A run that is resumed with other files would silently train
//! another model.
//!
//! Backbones, `model.init`, the tokenizer, the manifests and published files are read completely. Images have weaker
//! fingerprints, described at [`Mixture::prints`]; they are stored in the checkpoint one by one, so that
//! errors can name the images that changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pheye_data::Mixture;
use pheye_weights::{Checkpoint, FOLDER_FILES, first_in};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::seal::checksum;
use crate::{Config, Error, Result, Task};

/// Length and CRC-32 of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    /// Length in bytes.
    pub bytes: u64,
    /// CRC-32 of its contents.
    pub crc32: u32,
}

/// File in a checkpoint with the fingerprint of each image, as little-endian u32.
pub(crate) const IMAGES: &str = "pictures.crc32";
/// Maximum number of changed images that are named.
const TOLD: usize = 5;

/// Checksums of all files except images that `config` names and that influence the training.
///
/// # Errors
/// Returns [`Error::Read`] if a file cannot be read, or an error about an invalid index of shards.
pub(crate) fn files(config: &Config, mixture: &Mixture) -> Result<BTreeMap<String, Print>> {
    let m = &config.model;
    // The name in the config, the path, and the length and checksum if they are known.
    let mut files: Vec<Input> = Vec::new();
    let weights = matches!(config.task, Task::Pheye | Task::Baseline);
    for (key, name) in [("model.init", &m.init), ("model.encoder", &m.encoder), ("model.decoder", &m.decoder)]
    {
        let Some(name) = name else { continue };
        let path = config.model_path(name);
        let shown = |name: &Path| format!("{key}: {}", name.display());
        if path.is_dir() {
            let parts = of_model(&path, weights)?;
            files.extend(parts.into_iter().map(|part| (shown(&name.join(&part)), path.join(&part), None)));
        } else if weights {
            files.push((shown(name), path, None));
        }
    }
    if let Some(name) = &m.tokenizer {
        let mut path = config.tokenizer()?;
        if path.is_dir() {
            path = path.join("tokenizer.json");
        }
        // This file names the end token.
        let shown = |name: &Path| format!("model.tokenizer: {}", name.display());
        let beside = path.with_file_name("tokenizer_config.json");
        files.push((shown(name), path, None));
        if beside.is_file() {
            files.push((shown(&name.with_file_name("tokenizer_config.json")), beside, None));
        }
    }
    files.extend(published(config, mixture));
    // In parallel, because backbones and published files have gigabytes.
    let prints = files.into_par_iter().map(|(name, path, known)| {
        let print = known.map_or_else(|| checksum(&path), Ok);
        let (bytes, crc32) = print.map_err(|e| Error::read(&path, e))?;
        Ok((name, Print { bytes, crc32 }))
    });
    prints.collect()
}

/// A file that a run reads: its name in the config, its path, and its length and checksum if they are known.
type Input = (String, PathBuf, Option<(u64, u32)>);

/// The published files of the sources of `mixture`. The checksums of those that were read for their index just
/// now are known.
fn published(config: &Config, mixture: &Mixture) -> Vec<Input> {
    let (data, mut files) = (&config.data, Vec::new());
    for (number, source) in mixture.sources().enumerate() {
        for input in source.inputs() {
            let name = match data.train.get(number) {
                Some(path) => format!("data.train: {}", path.display()),
                None => {
                    let i = number - data.train.len();
                    let of = &data.source[i];
                    let path = match input.key {
                        "annotations" => of.annotations.as_ref(),
                        "okvqa_questions" => of.okvqa_questions.as_ref(),
                        _ => Some(&of.path),
                    };
                    let path = path.map_or_else(String::new, |path| path.display().to_string());
                    format!("data.source[{i}].{}: {path}", input.key)
                }
            };
            files.push((name, input.path.clone(), input.print));
        }
    }
    files
}

/// Configuration files of a model folder.
const CONFIGS: &[&str] = &["pheye.json", "config.json"];
/// Weights file of a model folder in the released layout.
const RELEASED: &[&str] = &["checkpoint.pt"];

/// The names of the files of the model in `folder`: its configurations and, if `weights` is set, its weights.
fn of_model(folder: &Path, weights: bool) -> Result<BTreeSet<PathBuf>> {
    let configs = CONFIGS.iter().map(|name| folder.join(name)).filter(|file| file.is_file());
    let mut files: BTreeSet<PathBuf> = configs.collect();
    let found = || first_in(folder, FOLDER_FILES).or_else(|| first_in(folder, RELEASED));
    if let Some(file) = found().filter(|_| weights) {
        files.extend(Checkpoint::open(&file)?.files().map(Path::to_owned));
        files.insert(file);
    }
    Ok(files.iter().filter_map(|file| file.file_name().map(PathBuf::from)).collect())
}

/// The differences between the checksums `then` and `now`, one line per file.
pub(crate) fn changes(then: &BTreeMap<String, Print>, now: &BTreeMap<String, Print>) -> Vec<String> {
    let names: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let change = |name: &String| match (then.get(name), now.get(name)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) if a.bytes != b.bytes => {
            Some(format!("{name}: {} bytes → {} bytes", a.bytes, b.bytes))
        }
        (Some(_), Some(_)) => Some(format!("{name}: other contents of the same length")),
        (Some(_), None) => Some(format!("{name}: not there any more")),
        (None, _) => Some(format!("{name}: was not there")),
    };
    names.into_iter().filter_map(change).map(|line| pheye_files::quoted(&line)).collect()
}

/// Images that differ from those of a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// Images that the run had already used.
    pub(crate) used: Vec<String>,
    /// Images that the run had not used yet.
    pub(crate) unused: Vec<String>,
}

/// Compares the image fingerprints `now` with `then`, those of a checkpoint after `samples` samples.
pub(crate) fn changed_images(mixture: &Mixture, then: &[u32], now: &[u32], samples: u64) -> Changed {
    let differ: Vec<usize> =
        (0..now.len()).filter(|&i| then.get(i).copied().unwrap_or(0) != now[i]).collect();
    if differ.is_empty() {
        return Changed::default();
    }
    let drawn = mixture.drawn(samples);
    let (used, unused) = differ.into_iter().partition(|&i| drawn[i]);
    let line =
        |i, is: bool| format!("{}: {}", mixture.place(i), if is { "changed" } else { "not there any more" });
    let told = |list: Vec<usize>| {
        let mut lines: Vec<_> = list.iter().take(TOLD).map(|&i| line(i, now[i] != 0)).collect();
        if list.len() > TOLD {
            lines.push(format!("and {} images more", list.len() - TOLD));
        }
        lines
    };
    Changed { used: told(used), unused: told(unused) }
}
