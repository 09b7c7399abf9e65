//! Models by their name on the hub: everything that loading one needs, from the cache or downloaded.

use pheye_files::{CONFIG_LIMIT, Kind};
use pheye_hub::{Hub, Repo, Snapshot, Watch};
use pheye_model::{CONFIG_FILE, WEIGHTS_FILE, is_known_backbone, is_released};
use serde_json::Value;

use crate::located::{TOKENIZER, linked, released};
use crate::{Error, ModelFiles, Result};

pub use pheye_hub::{Error as HubError, Progress, Settings, Token};
pub use pheye_hub::{Hub as Client, Repo as Name};

/// The files of `model`, a folder or `OWNER/NAME` on the hub, and of the backbones and the tokenizer that its released
/// configuration names. What is neither beside it nor in the cache is downloaded.
///
/// # Errors
/// Those of the hub, [`Error::NotAModel`] for a repository with the files of neither layout, and [`Error::NoFolder`],
/// [`Error::Unknown`] and [`Error::Dangling`] for what is not there; the first two say what there is instead.
pub fn locate(hub: &Hub, model: &str, watch: Watch) -> Result<ModelFiles> {
    linked(model.as_ref())?;
    let mut files = Repo::unless_folder(model).map(|repo| hub.snapshot(repo));
    let mut located = ModelFiles::folder(model);
    match &mut files {
        Some(files) => located.folder = own_files(files, watch).map_err(|e| unknown(hub, model, files, e))?,
        None if !located.folder.exists() => {
            let advice = by_address(model).unwrap_or_else(|| in_cache(hub));
            return Err(Error::NoFolder { folder: located.folder, advice });
        }
        None => located.check()?,
    }
    let Some(config) = released(&located.folder) else { return Ok(located) };
    for key in ["encoder", "decoder", "tokenizer"] {
        let Some(name) = config.get(key).and_then(Value::as_str) else { continue };
        let needed = if key == "tokenizer" { TOKENIZER } else { "config.json" };
        linked(&located.folder.join(name))?;
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

/// An error about a repository of which the cache has nothing, when the hub did not give it either.
fn unknown(hub: &Hub, model: &str, files: &Snapshot, error: Error) -> Error {
    use HubError as H;
    match error {
        Error::Hub(
            source @ (H::Offline { .. } | H::NoRepo { .. } | H::Unreachable { .. } | H::Denied { .. }),
        ) if files.folder().is_none() => {
            Error::Unknown { model: model.to_owned(), advice: in_cache(hub), source }
        }
        other => other,
    }
}

/// The name that an address of a page of the hub holds.
fn by_address(model: &str) -> Option<String> {
    let (scheme, rest) = model.split_once("://").unwrap_or(("", model));
    let (host, path) = rest.split_once('/')?;
    let path = match scheme {
        "hf" => rest,
        "" if !["huggingface.co", "www.huggingface.co", "hf.co"].contains(&host) => return None,
        _ => path,
    };
    let mut parts = path.split(['/', '?', '#']).filter(|part| !part.is_empty());
    let name: Repo = format!("{}/{}", parts.next()?, parts.next()?).parse().ok()?;
    Some(format!("; a model of the hub is given as OWNER/NAME, here {name}"))
}

/// The first models of the cache.
fn in_cache(hub: &Hub) -> String {
    const SHOWN: usize = 10;
    let names = pheye_hub::cached(&hub.settings().cache);
    let more = names.len().saturating_sub(SHOWN);
    match names.len() {
        0 => String::new(),
        _ if more > 0 => format!("; hub names in the cache: {} and {more} more", names[..SHOWN].join(", ")),
        _ => format!("; hub names in the cache: {}", names.join(", ")),
    }
}

/// Configuration and weights of a repository, in either layout; for this project's also its tokenizer.
fn own_files(files: &mut Snapshot, watch: Watch) -> Result<std::path::PathBuf> {
    let config = files.find("config.json", watch)?;
    let folder = |files: &Snapshot| files.folder().unwrap_or_default();
    if config.is_some() && is_released(&folder(files)) {
        files.get("checkpoint.pt", watch)?;
        return Ok(folder(files));
    }
    if files.find(CONFIG_FILE, watch)?.is_none() {
        return Err(Error::NotAModel { repo: files.repo().to_string() });
    }
    if files.find(WEIGHTS_FILE, watch)?.is_none() {
        // Large models come in parts, with an index of them.
        let index = files.get(&format!("{WEIGHTS_FILE}.index.json"), watch)?;
        let index = pheye_files::read_text(&index, Kind::Regular, CONFIG_LIMIT).ok();
        let index: Option<Value> = index.and_then(|text| serde_json::from_str(&text).ok());
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
