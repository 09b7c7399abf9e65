//! Where the files of a model are: in its folder, or in the folders of its backbones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pheye_files::{CONFIG_LIMIT, Kind};
use pheye_train::{is_model, model_in};

use crate::{Error, Result};

/// The folder of a model, and the folders of the backbones and tokenizer that its configuration names by
/// their hub names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelFiles {
    /// The model's folder.
    pub folder: PathBuf,
    /// Folders by hub name.
    pub named: BTreeMap<String, PathBuf>,
}

impl ModelFiles {
    /// A folder that contains everything that its configuration names.
    ///
    /// The folder of a finished training run stands for the model in it.
    pub fn folder(folder: impl Into<PathBuf>) -> ModelFiles {
        ModelFiles { folder: model_in(folder.into()), named: BTreeMap::new() }
    }

    /// The folder for the hub name `name`.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        self.named.get(name).cloned()
    }

    /// Checks that the folder exists, and that no file of the model is a link without a target.
    ///
    /// # Errors
    /// Returns [`Error::NoFolder`] or [`Error::Dangling`].
    pub fn check(&self) -> Result<()> {
        linked(&self.folder)?;
        if !self.folder.exists() {
            return Err(Error::NoFolder { folder: self.folder.clone(), advice: String::new() });
        }
        if !self.folder.is_dir() {
            return Err(Error::NotAFolder { path: self.folder.clone() });
        }
        if !is_model(&self.folder) {
            return Err(match self.folder.join("adapter_config.json").exists() {
                true => Error::Adapter { folder: self.folder.clone() },
                false => pheye_model::Error::NoModel { path: self.folder.clone() }.into(),
            });
        }
        let config = released(&self.folder).unwrap_or_default();
        let named = ["encoder", "decoder", "tokenizer"].iter().filter_map(|key| config.get(key)?.as_str());
        let inner = named.map(|name| self.find(name).unwrap_or_else(|| self.folder.join(name)));
        for folder in inner.chain([self.folder.clone()]) {
            linked(&folder)?;
            FILES.iter().try_for_each(|file| linked(&folder.join(file)))?;
        }
        Ok(())
    }

    /// The path of the model's `tokenizer.json`, in either layout; the file may not exist.
    pub fn tokenizer(&self) -> PathBuf {
        let named = || {
            let name = released(&self.folder)?.get("tokenizer")?.as_str()?.to_owned();
            let folders = [Some(self.folder.join(&name)), self.find(&name)];
            let mut files = folders.into_iter().flatten().map(|folder| folder.join(TOKENIZER));
            files.find(|file| file.exists())
        };
        named().unwrap_or_else(|| self.folder.join(TOKENIZER))
    }
}

pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// The files of models and backbones.
const FILES: [&str; 8] = [
    "config.json",
    "pheye.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "checkpoint.pt",
    "pytorch_model.bin",
    TOKENIZER,
    "tokenizer_config.json",
];

/// Returns an error if `path` is a link without a target, which would otherwise count as a missing file.
pub(crate) fn linked(path: &Path) -> Result<()> {
    match (std::fs::read_link(path), path.try_exists()) {
        (Ok(target), Ok(false)) => Err(Error::Dangling { link: path.to_owned(), target }),
        _ => Ok(()),
    }
}

/// The released configuration in `folder`, if it exists.
pub(crate) fn released(folder: &Path) -> Option<serde_json::Value> {
    let path = folder.join("config.json");
    serde_json::from_str(&pheye_files::read_text(&path, Kind::Regular, CONFIG_LIMIT).ok()?).ok()
}
