//! `pheye convert`: a released checkpoint into this project's layout.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use pheye::model::{Config, Options, Pheye};

/// Convert a model folder to this project's layout: pheye.json, model.safetensors, tokenizer.json
///
/// Reads the released layout (config.json, checkpoint.pt) or this project's own. Nothing in a checkpoint is executed.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the model to read, or its name on the Hugging Face hub
    #[arg(value_name = "FROM")]
    from: String,
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
    let from = super::locate(&args.from)?;
    let named = |name: &str| from.find(name);
    let config = Config::load_named(&from.folder, &named)?;
    let options = if args.bf16 { Options::FROZEN_BF16 } else { Options::default() };
    let mut model = Pheye::load_named(&from.folder, options, &named, |_, _| ())?;
    model.save(&args.to)?;
    // With its configuration, which names the end token.
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let (tokenizer, to) = (from.tokenizer().with_file_name(name), args.to.join(name));
        if tokenizer.exists() {
            std::fs::copy(&tokenizer, &to)
                .with_context(|| format!("{} to {}", tokenizer.display(), to.display()))?;
        }
    }
    let counts = config.counts()?;
    println!("{}: {} parameters", args.to.display(), counts.trained() + counts.frozen());
    Ok(ExitCode::SUCCESS)
}

/// Files of a model in either layout, none of which is ever overwritten.
const FILES: [&str; 5] =
    [pheye::model::CONFIG_FILE, pheye::model::WEIGHTS_FILE, "tokenizer.json", "config.json", "checkpoint.pt"];
