//! The files that a run starts from: `model.init`, the backbones and the tokenizer.
//!
//! A path of `[model]` is the path of a file or folder, the folder of a finished run, whose model is meant, or
//! the name of a model on the hub. Names on the hub are located by the program before the run
//! ([`Config::not_found`], [`Config::located`]).

use std::path::{Path, PathBuf};

use pheye_baselines::is_baseline;
use pheye_files::{CONFIG_LIMIT, Kind};
use pheye_model::{CONFIG_FILE, is_released};

use crate::config::Backbone;
use crate::{Config, Error, Result};

const TOKENIZER_FILE: &str = "tokenizer.json";

/// Whether `folder` holds a Pheye model in either layout, or one of the systems that Pheye is compared with.
pub fn is_model(folder: &Path) -> bool {
    folder.join(CONFIG_FILE).exists() || is_released(folder) || is_baseline(folder)
}

/// The model in the folder of a finished run; any other path stays as it is.
pub fn model_in(path: PathBuf) -> PathBuf {
    let of_run = path.join("model");
    if !is_model(&path) && is_model(&of_run) { of_run } else { path }
}

impl Config {
    /// The file or folder of `path`, a value of `[model]`.
    pub fn model_path(&self, path: &Path) -> PathBuf {
        if let Some(folder) = path.to_str().and_then(|name| self.located.get(name)) {
            return folder.clone();
        }
        model_in(self.resolve(path))
    }

    /// The file or folder of the backbone `which`; `None` if it starts from random weights.
    ///
    /// # Errors
    /// Returns [`Error::Needed`] if the config does not name it.
    pub fn backbone(&self, which: Backbone) -> Result<Option<PathBuf>> {
        if self.model.random.contains(&which) {
            return Ok(None);
        }
        let (key, path) = match which {
            Backbone::Encoder => ("model.encoder", &self.model.encoder),
            Backbone::Decoder => ("model.decoder", &self.model.decoder),
        };
        let path = path.as_ref().ok_or(Error::Needed { key, task: self.task })?;
        Ok(Some(self.model_path(path)))
    }

    /// The tokenizer: that of `model.tokenizer`, or that of the model to start from.
    ///
    /// # Errors
    /// Returns [`Error::Needed`] if the config names neither.
    pub fn tokenizer(&self) -> Result<PathBuf> {
        match (&self.model.tokenizer, &self.model.init) {
            (Some(path), _) => Ok(self.model_path(path)),
            (None, Some(init)) => Ok(self.tokenizer_of(&self.model_path(init))),
            (None, None) => Err(Error::Needed { key: "model.tokenizer", task: self.task }),
        }
    }

    /// The tokenizer of the model in `folder`: its own file, or the one that a released configuration names.
    fn tokenizer_of(&self, folder: &Path) -> PathBuf {
        let own = folder.join(TOKENIZER_FILE);
        if own.exists() {
            return own;
        }
        let named = || {
            let text =
                pheye_files::read_text(&folder.join("config.json"), Kind::Regular, CONFIG_LIMIT).ok()?;
            let config: serde_json::Value = serde_json::from_str(&text).ok()?;
            let name = config.get("tokenizer")?.as_str()?.to_owned();
            let folders = [Some(folder.join(&name)), self.located.get(&name).cloned()];
            folders.into_iter().flatten().map(|f| f.join(TOKENIZER_FILE)).find(|file| file.exists())
        };
        named().unwrap_or(own)
    }

    /// The values of `[model]` that are no files or folders, each with its key: names on the hub, or faults.
    pub fn not_found(&self) -> Vec<(&'static str, &Path)> {
        let m = &self.model;
        let keys = [
            ("model.init", &m.init),
            ("model.encoder", &m.encoder),
            ("model.decoder", &m.decoder),
            ("model.tokenizer", &m.tokenizer),
        ];
        let given = keys.into_iter().filter_map(|(key, path)| Some((key, path.as_deref()?)));
        given.filter(|(_, path)| !self.resolve(path).exists()).collect()
    }
}
