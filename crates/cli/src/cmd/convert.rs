//! `pheye convert`: a released checkpoint into this project's layout.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use pheye::model::{Config, Options, Pheye};

/// Convert a model folder to this project's layout: pheye.json, model.safetensors, tokenizer.json
///
/// Reads the released layout (config.json, checkpoint.pt) or this project's own. Nothing in a checkpoint is executed.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the model to read
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// Folder to write; it must not hold a model yet
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// Store frozen weights in bf16: half the size, rounded
    #[arg(long)]
    bf16: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    for name in FILES {
        let file = args.to.join(name);
        ensure!(!file.exists(), "{} exists; choose another folder", file.display());
    }
    let config = Config::load(&args.from)?;
    let mut model = Pheye::load(&args.from, Options { frozen_bf16: args.bf16 })?;
    model.save(&args.to)?;
    if let Some(tokenizer) = tokenizer(&args.from) {
        let to = args.to.join("tokenizer.json");
        std::fs::copy(&tokenizer, &to)
            .with_context(|| format!("{} to {}", tokenizer.display(), to.display()))?;
    }
    let counts = config.counts()?;
    println!("{}: {} parameters", args.to.display(), counts.trained() + counts.frozen());
    Ok(ExitCode::SUCCESS)
}

/// Files of a model in either layout, none of which is ever overwritten.
const FILES: [&str; 5] =
    [pheye::model::CONFIG_FILE, pheye::model::WEIGHTS_FILE, "tokenizer.json", "config.json", "checkpoint.pt"];

/// The tokenizer of a folder in either layout.
fn tokenizer(dir: &Path) -> Option<PathBuf> {
    let named = std::fs::read(dir.join("config.json")).ok().and_then(|text| {
        let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
        Some(dir.join(config.get("tokenizer")?.as_str()?).join("tokenizer.json"))
    });
    [Some(dir.join("tokenizer.json")), named].into_iter().flatten().find(|path| path.exists())
}
