use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where a model's files are: its own folder, and the folders of what its configuration names by a hub name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Located {
    /// The model's folder.
    pub folder: PathBuf,
    /// Folders by hub name.
    pub named: BTreeMap<String, PathBuf>,
}

impl Located {
    /// A folder with all that its configuration names beside it.
    pub fn folder(folder: impl Into<PathBuf>) -> Located {
        Located { folder: folder.into(), named: BTreeMap::new() }
    }

    /// The folder of what the hub calls `name`.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        self.named.get(name).cloned()
    }

    /// The model's `tokenizer.json`, in either layout; it may not exist.
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

/// The released configuration in `folder`, if there is one.
pub(crate) fn released(folder: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&std::fs::read(folder.join("config.json")).ok()?).ok()
}
