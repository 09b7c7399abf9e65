//! CLIP and Phi as their makers publish them: a folder with `config.json` and weights, whole or in shards.

use std::path::Path;

use pheye_weights::Checkpoint;
use serde_json::Value;

use crate::load::{known_keys, read_json};
use crate::{Config, Error, Result};

/// Weights of a published folder, the first that is there.
const WEIGHTS: &[&str] = &[
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
const CONFIG: &str = "config.json";

/// The weights of a backbone: the file `path`, or those in the folder `path`.
pub(crate) fn open(path: &Path) -> Result<Checkpoint> {
    if !path.is_dir() {
        return Ok(Checkpoint::open(path)?);
    }
    let found = WEIGHTS.iter().map(|name| path.join(name)).find(|file| file.exists());
    match found {
        Some(file) => Ok(Checkpoint::open(file)?),
        None => Err(Error::NoBackbone { path: path.into(), looked_for: WEIGHTS }),
    }
}

/// What a whole CLIP model has beside its vision tower.
pub(crate) fn beside_clip(name: &str) -> bool {
    name.starts_with("text_model.")
        || ["logit_scale", "text_projection.weight", "visual_projection.weight"].contains(&name)
}

/// What older copies of Phi store although it follows from the configuration.
pub(crate) fn beside_phi(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
}

impl Config {
    /// This configuration with the sizes of the backbones that are folders as on the hub, from their `config.json`; of a
    /// CLIP model's the `vision_config`. A backbone that is a single file changes nothing.
    ///
    /// # Errors
    /// A folder without `config.json`, one that cannot be understood, and one of another kind of model.
    pub fn with_backbones(mut self, vision: Option<&Path>, text: Option<&Path>) -> Result<Config> {
        if let Some(folder) = vision.filter(|path| path.is_dir()) {
            let value = read(folder, &["clip", "clip_vision_model"])?;
            let tower = value.get("vision_config").unwrap_or(&value);
            self.vision = known_keys(&folder.join(CONFIG), tower)?;
        }
        if let Some(folder) = text.filter(|path| path.is_dir()) {
            self.text = known_keys(&folder.join(CONFIG), &read(folder, &["phi"])?)?;
        }
        Ok(self)
    }
}

/// The configuration in `folder`, which must be of one of these kinds.
fn read(folder: &Path, kinds: &[&str]) -> Result<Value> {
    let path = folder.join(CONFIG);
    let value = read_json(&path)?;
    match value.get("model_type").and_then(Value::as_str) {
        Some(kind) if !kinds.contains(&kind) => {
            let why =
                format!("`model_type` is `{kind}`, but this backbone must be one of {}", kinds.join(", "));
            Err(Error::Config { path, why })
        }
        _ => Ok(value),
    }
}
