//! `pheye models`: the models of the Hugging Face hub that are in the cache.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use pheye::baselines::is_baseline;
use pheye::hub::{Cached, Name, Settings, list, remove};
use pheye::model::{CONFIG_FILE, is_released};
use serde_json::json;

use crate::numbers::bytes;
use crate::out::{note, say, tell};

/// List the downloaded models, with their sizes, or remove one
///
/// The cache is the one that all Hugging Face libraries share (HF_HUB_CACHE, or `hub` in HF_HOME, or
/// ~/.cache/huggingface/hub), so that it may hold models that `pheye` cannot run. Examples:
///
///   pheye models
///   pheye models remove miguelcarv/Pheye-x4-672
#[derive(clap::Args)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Remove a model, all its revisions, from the cache
    Remove {
        /// The name of the model
        #[arg(value_name = "OWNER/NAME")]
        name: String,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let cache = Settings::from_env()?.cache;
    if let Some(Action::Remove { name }) = args.action {
        let repo: Name = name.parse()?;
        let freed = remove(&cache, &repo).map_err(|error| match error {
            pheye::hub::HubError::NotCached { .. } => {
                let names: Vec<String> = list(&cache).into_iter().map(|model| model.id).collect();
                let has = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
                anyhow::anyhow!("{error}; it holds {has}")
            }
            other => other.into(),
        })?;
        tell!("{name}: {} freed", bytes(freed));
        return Ok(ExitCode::SUCCESS);
    }
    let models = list(&cache);
    if args.json {
        let row = |model: &Cached| {
            json!({
                "name": model.id,
                "kind": kind(model),
                "bytes": model.bytes,
                "incomplete_bytes": model.incomplete,
                "revisions": model.revisions.iter().map(|(name, commit)| (name.clone(), commit.clone().into())).collect::<serde_json::Map<_, _>>(),
                "folder": model.snapshot,
            })
        };
        let rows: Vec<_> = models.iter().map(row).collect();
        say!("{}", serde_json::to_string(&json!({"cache": cache, "models": rows})).context("JSON")?);
        return Ok(ExitCode::SUCCESS);
    }
    if models.is_empty() {
        note!("no model in {}", cache.display());
        return Ok(ExitCode::SUCCESS);
    }
    let wide = models.iter().map(|model| model.id.chars().count()).max().unwrap_or(0);
    for model in &models {
        let rest = match model.incomplete {
            0 => String::new(),
            n => format!("  and {} of an interrupted download", bytes(n)),
        };
        say!("{:wide$}  {:>12}  {}{rest}", model.id, bytes(model.bytes), kind(model));
    }
    say!("{:wide$}  {:>12}  in {}", "", bytes(models.iter().map(|m| m.bytes).sum()), cache.display());
    Ok(ExitCode::SUCCESS)
}

/// What the repository holds, by its files.
fn kind(model: &Cached) -> String {
    let Some(folder) = &model.snapshot else { return "nothing complete".to_owned() };
    let ours = folder.join(CONFIG_FILE).exists();
    match folder {
        folder if ours || is_released(folder) => "Pheye".to_owned(),
        folder if is_baseline(folder) => "a system of `pheye baselines`".to_owned(),
        folder => model_type(folder).unwrap_or_else(|| "other files".to_owned()),
    }
}

/// `model_type` of a `config.json`.
fn model_type(folder: &Path) -> Option<String> {
    let config = pheye::weights::json::read_json(&folder.join("config.json")).ok()?;
    Some(config.get("model_type")?.as_str()?.to_owned())
}
