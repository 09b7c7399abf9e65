//! Locates a model by its name on the hub: all files needed to load it, cached or downloaded.

use std::collections::BTreeSet;

use pheye_files::{CONFIG_LIMIT, Kind};
use pheye_hub::{Hub, Repo, Snapshot, Watch};
use pheye_model::{CONFIG_FILE, is_known_backbone, is_released};
use pheye_weights::FOLDER_FILES;
use serde_json::Value;

use crate::located::{TOKENIZER, linked, released};
use crate::{Error, ModelFiles, Result};

pub use pheye_hub::{Cached, Error as HubError, Progress, Settings, Token, list, remove};
pub use pheye_hub::{Hub as Client, Repo as Name};

/// Locates the files of `model`, a folder or `OWNER/NAME` on the hub, and those of the backbones and the
/// tokenizer that a released configuration names. Files that are neither next to the configuration nor in the
/// cache are downloaded.
///
/// # Errors
/// Returns the errors of the hub; [`Error::NotAModel`] if a repository has the files of neither layout;
/// [`Error::NoFolder`] and [`Error::Unknown`], with a suggestion, if `model` does not exist; and
/// [`Error::Dangling`] for a link without a target.
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
            // A folder in the same repository.
            (None, Some(files)) => {
                files.get(&format!("{name}/{needed}"), watch)?;
                optional.map(|file| files.find(&format!("{name}/{file}"), watch)).transpose()?;
            }
            // A local model without these files; loading it reports what is missing.
            (None, None) => {}
        }
    }
    Ok(located)
}

/// Locates the configuration of a model on the hub, and those of backbones that it names and that are not built in; no
/// weights.
///
/// # Errors
/// Returns the errors of the hub, and [`Error::NotAModel`] if the repository has the configuration of neither layout.
pub fn locate_config(hub: &Hub, model: &str, watch: Watch) -> Result<ModelFiles> {
    let mut files = hub.snapshot(model.parse()?);
    let mut get = || {
        let found = [files.find("config.json", watch)?, files.find(CONFIG_FILE, watch)?];
        match found.into_iter().flatten().next() {
            Some(_) => Ok(()),
            None => Err(Error::NotAModel { repo: model.to_owned() }),
        }
    };
    if let Err(error) = get() {
        return Err(unknown(hub, model, &files, error));
    }
    let mut located = ModelFiles { folder: files.folder().unwrap_or_default(), ..ModelFiles::default() };
    let config = released(&located.folder).unwrap_or_default();
    for key in ["encoder", "decoder"] {
        let Some(name) = config.get(key).and_then(Value::as_str).filter(|name| !is_known_backbone(name))
        else {
            continue;
        };
        if let Some(repo) = Repo::unless_folder(name) {
            let mut files = hub.snapshot(repo);
            files.get("config.json", watch)?;
            located.named.insert(name.to_owned(), files.folder().unwrap_or_default());
        } else {
            files.get(&format!("{name}/config.json"), watch)?;
        }
    }
    Ok(located)
}

/// Locates the files of `name`, a CLIP or Phi model or a tokenizer on the hub: its `config.json`, its weights
/// in one file or in shards, and its tokenizer, as far as the repository has them. Files that are not in the
/// cache are downloaded.
///
/// # Errors
/// Returns the errors of the hub, [`Error::NotAModel`] if the repository has none of these files, and
/// [`Error::Unknown`], with a suggestion, if it does not exist.
pub fn locate_backbone(hub: &Hub, name: &str, watch: Watch) -> Result<ModelFiles> {
    let mut files = hub.snapshot(name.parse()?);
    let mut get = || {
        let config = files.find("config.json", watch)?;
        if config.is_some() {
            weights(&mut files, watch)?;
        }
        let tokenizer = files.find(TOKENIZER, watch)?;
        if tokenizer.is_some() {
            files.find("tokenizer_config.json", watch)?;
        }
        match config.or(tokenizer) {
            Some(_) => Ok(()),
            None => Err(Error::NotAModel { repo: name.to_owned() }),
        }
    };
    match get() {
        Ok(()) => Ok(ModelFiles::folder(files.folder().unwrap_or_default())),
        Err(error) => Err(unknown(hub, name, &files, error)),
    }
}

/// If the hub cannot be reached or has no such repository, and nothing of the repository is cached, suggests
/// cached names.
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

/// The suggestion for a web address of a model on the hub: its name.
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

/// The suggestion for an unknown name: the first names in the cache.
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

/// Locates configuration and weights of a repository in either layout; in this project's layout also the
/// tokenizer.
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
    weights(files, watch)?;
    files.get(TOKENIZER, watch)?;
    files.find("tokenizer_config.json", watch)?;
    Ok(folder(files))
}

/// Locates the weights of a model: the first of the usual files that the repository has, with the shards that
/// it lists if it is an index.
fn weights(files: &mut Snapshot, watch: Watch) -> Result<()> {
    for name in FOLDER_FILES {
        let Some(path) = files.find(name, watch)? else { continue };
        if name.ends_with(".index.json") {
            let index = pheye_files::read_text(&path, Kind::Regular, CONFIG_LIMIT).ok();
            let index: Option<Value> = index.and_then(|text| serde_json::from_str(&text).ok());
            let map = index.as_ref().and_then(|i| i.get("weight_map")?.as_object());
            let shards: BTreeSet<&str> =
                map.into_iter().flat_map(|m| m.values().filter_map(Value::as_str)).collect();
            for shard in shards {
                files.get(shard, watch)?;
            }
        }
        return Ok(());
    }
    // Reports the file that is missing.
    files.get(FOLDER_FILES[0], watch)?;
    Ok(())
}
