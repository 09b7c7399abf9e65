//! Models by their name on the hub: everything that loading one needs, from the cache or downloaded.

use pheye_hub::{Hub, Repo, Snapshot, Watch};
use pheye_model::{CONFIG_FILE, WEIGHTS_FILE, is_known_backbone};
use serde_json::Value;

use crate::located::{TOKENIZER, released};
use crate::{Error, Located, Result};

pub use pheye_hub::{Error as HubError, Progress, Settings, Token};
pub use pheye_hub::{Hub as Client, Repo as Name};

/// The files of `model`, a folder or `OWNER/NAME` on the hub, and of the backbones and the tokenizer that its released
/// configuration names. What is neither beside it nor in the cache is downloaded.
///
/// # Errors
/// Those of the hub, and [`Error::NotAModel`] for a repository with the files of neither layout.
pub fn locate(hub: &Hub, model: &str, watch: Watch) -> Result<Located> {
    let mut files = Repo::unless_folder(model).map(|repo| hub.snapshot(repo));
    let mut located = Located::folder(model);
    if let Some(files) = &mut files {
        located.folder = own_files(files, watch)?;
    }
    let Some(config) = released(&located.folder) else { return Ok(located) };
    for key in ["encoder", "decoder", "tokenizer"] {
        let Some(name) = config.get(key).and_then(Value::as_str) else { continue };
        let needed = if key == "tokenizer" { TOKENIZER } else { "config.json" };
        if (key != "tokenizer" && is_known_backbone(name)) || located.folder.join(name).join(needed).exists()
        {
            continue;
        }
        let optional = (key == "tokenizer").then_some("tokenizer_config.json");
        match (Repo::unless_folder(name), &mut files) {
            (Some(repo), _) => {
                let mut files = hub.snapshot(repo);
                files.get(needed, watch)?;
                optional.map(|file| files.find(file, watch)).transpose()?;
                located.named.insert(name.to_owned(), files.folder().unwrap_or_default());
            }
            // A folder of the same repository.
            (None, Some(files)) => {
                files.get(&format!("{name}/{needed}"), watch)?;
                optional.map(|file| files.find(&format!("{name}/{file}"), watch)).transpose()?;
            }
            // A local model without them; loading says what it misses.
            (None, None) => {}
        }
    }
    Ok(located)
}

/// Configuration and weights of a repository, in either layout; for this project's also its tokenizer.
fn own_files(files: &mut Snapshot, watch: Watch) -> Result<std::path::PathBuf> {
    let config = files.find("config.json", watch)?;
    let folder = |files: &Snapshot| files.folder().unwrap_or_default();
    if config.is_some() && released(&folder(files)).is_some_and(|c| c.get("encoder").is_some()) {
        files.get("checkpoint.pt", watch)?;
        return Ok(folder(files));
    }
    if files.find(CONFIG_FILE, watch)?.is_none() {
        return Err(Error::NotAModel { repo: files.repo().to_string() });
    }
    if files.find(WEIGHTS_FILE, watch)?.is_none() {
        // Large models come in parts, with an index of them.
        let index = files.get(&format!("{WEIGHTS_FILE}.index.json"), watch)?;
        let index: Option<Value> =
            std::fs::read(index).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let map = index.as_ref().and_then(|i| i.get("weight_map")?.as_object());
        let parts: std::collections::BTreeSet<&str> =
            map.into_iter().flat_map(|m| m.values().filter_map(Value::as_str)).collect();
        for part in parts {
            files.get(part, watch)?;
        }
    }
    files.get(TOKENIZER, watch)?;
    files.find("tokenizer_config.json", watch)?;
    Ok(folder(files))
}
