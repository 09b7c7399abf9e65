//! `pheye init`: a config that fine-tunes a model on someone's data.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use pheye::ModelFiles;
use pheye::data::{Format, Manifest, Source, SourceConfig};

use crate::numbers::grouped;
use crate::out::say;

/// Print a config that fine-tunes a model on your data
///
/// Everything in it can be changed (docs/config.md, or `pheye train --keys`). The data may be:
///
///   a folder of images, each beside a .txt file of the same stem with its caption
///   a .jsonl file, or a folder or .zip with manifest.jsonl: a line for each image, as in
///     {"image": "cat.jpg", "instruction": "How many cats?", "output": "two"}
///   a .json file of conversations, as LLaVA and ShareGPT4V have them, with --images
///   .tar shards (WebDataset) or .parquet files
///
/// Two commands fine-tune a released model:
///
///   pheye init --model miguelcarv/Pheye-x4-672 --data photos > run.toml
///   pheye train run.toml
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The model to start from: a folder, or a name on the Hugging Face hub
    #[arg(long, value_name = "DIR|OWNER/NAME")]
    model: String,
    /// The training data
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// The folder or archive of the images, if it is not that of the data
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Folder of the run
    #[arg(long, value_name = "DIR", default_value = "run")]
    out: PathBuf,
}

/// Samples of an optimizer step, by micro-batches that fit into the memory of a common machine.
const BATCH: usize = 4;
const ACCUMULATION: usize = 4;

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let model = model(&args.model)?;
    let data = std::path::absolute(&args.data)?;
    ensure!(data.exists(), "--data: {} does not exist", args.data.display());
    let images = args.images.as_ref().map(std::path::absolute).transpose()?;
    let (table, samples) = match form(&data)? {
        None => {
            ensure!(images.is_none(), "--images: the images of a manifest are beside it");
            let manifest = Manifest::open(&data)?;
            (format!("train = [{}]\n", text(&data)?), manifest.items.len())
        }
        Some((format, name)) => {
            let config = SourceConfig { images: images.clone(), ..SourceConfig::new(format, &data) };
            let source = Source::open(&config, None).with_context(|| format!("--data, read as `{name}`"))?;
            let mut table = format!("\n[[data.source]]\nformat = \"{name}\"\npath = {}\n", text(&data)?);
            if let Some(images) = &images {
                table += &format!("images = {}\n", text(images)?);
            }
            (table, source.len())
        }
    };
    ensure!(samples > 0, "--data: there is no sample in {}", args.data.display());
    let out = text(&std::path::absolute(&args.out)?)?;
    let steps = samples.div_ceil(BATCH * ACCUMULATION);
    say!(
        "# Fine-tunes {} on {} images, {steps} steps an epoch.\n\
         # `pheye data check` says whether the data is complete, `pheye train --plan` what the run takes; both take this file.\n\
         task = \"pheye\"\n\
         \n\
         [model]\n\
         init = {model}                # brings its tokenizer\n\
         frozen_bf16 = true            # the frozen weights at half the memory; trained ones are f32\n\
         \n\
         [data]\n\
         on_broken = \"skip\"            # and counted; \"stop\" is strict\n\
         {table}\n\
         [optim]\n\
         lr = 5e-5                     # that of the paper's last stage\n\
         schedule = \"cosine\"\n\
         \n\
         [train]\n\
         epochs = 1\n\
         batch = {BATCH}                     # less takes less memory\n\
         accumulation = {ACCUMULATION}              # samples of a step: batch × accumulation\n\
         lora_dropout = 0.05\n\
         checkpoint_every = 100\n\
         out = {out}",
        args.model,
        grouped(samples as u64),
    );
    Ok(ExitCode::SUCCESS)
}

/// The value of `model.init`.
fn model(name: &str) -> anyhow::Result<String> {
    let folder = Path::new(name);
    if !folder.exists() {
        #[cfg(feature = "hub")]
        if pheye::hub::Name::unless_folder(name).is_some() {
            return Ok(string(name));
        }
        bail!("--model: `{name}` is neither a folder nor a name on the hub (OWNER/NAME)");
    }
    ModelFiles::folder(folder).check().context("--model")?;
    text(&std::path::absolute(folder)?)
}

/// A TOML string, whose escapes are those of JSON.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A path as a TOML string.
fn text(path: &Path) -> anyhow::Result<String> {
    Ok(string(path.to_str().with_context(|| format!("{}: the name is not UTF-8", path.display()))?))
}

/// The form of the data by its name and contents, with the name of the form; `None` for a manifest.
fn form(data: &Path) -> anyhow::Result<Option<(Format, &'static str)>> {
    let end = data.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    Ok(match &*end {
        "jsonl" | "zip" => None,
        "json" => Some((Format::Conversation, "conversation")),
        "tar" => Some((Format::WebDataset, "webdataset")),
        "parquet" => Some((Format::Parquet, "parquet")),
        _ if !data.is_dir() => bail!(
            "--data: {} is neither a folder nor one of .jsonl, .zip, .json, .tar, .parquet",
            data.display()
        ),
        _ if data.join("manifest.jsonl").exists() => None,
        _ => match first_shard(data)? {
            Some("tar") => Some((Format::WebDataset, "webdataset")),
            Some(_) => Some((Format::Parquet, "parquet")),
            None => Some((Format::Folder, "folder")),
        },
    })
}

/// The ending of the shards in a folder that holds shards.
fn first_shard(folder: &Path) -> anyhow::Result<Option<&'static str>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let has = |end: &str| names.iter().any(|name| name.extension().is_some_and(|e| e == end));
    Ok(["tar", "parquet"].into_iter().find(|end| has(end)))
}
