//! `pheye convert`: converts a model to this project's layout, to PEFT adapters, or to a plain CLIP vision
//! model.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use pheye::ModelFiles;
use pheye::model::{Cast, Conversion, LoraSet, Output};
use pheye::tensor::DType;
use pheye::weights::{Opened, Staged, copy_atomically, refuse_existing};

use crate::out::{note, tell};
use crate::progress::Loading;
use crate::signals;

/// Convert a model folder: to safetensors, to PEFT adapters, or to a plain CLIP vision model
///
/// Reads the released layout (config.json, checkpoint.pt) or this project's own (pheye.json,
/// model.safetensors). Nothing in a checkpoint is executed, tensors are copied one megabyte at a time, and no
/// existing file is overwritten. The files appear in TO once all of them are complete; after an interruption,
/// run the same command again.
///
/// Without --extract-lora or --merge-lora, TO becomes the same model in this project's layout, with the data
/// types as stored, and in shards if the weights exceed --shard-size.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder of the model to read, or its name on the Hugging Face hub
    #[arg(value_name = "FROM")]
    from: String,
    /// Folder to write; it must not contain a model yet
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// Write only the LoRA sets, as PEFT adapter folders: TO/first (global image) and TO/second (tiles)
    #[arg(long, conflicts_with = "merge_lora")]
    extract_lora: bool,
    /// Write only the vision tower, with one LoRA set merged into it, as a CLIPVisionModel: `global` or
    /// `local`. A model has two sets for one tower, one for the global image and one for the tiles, so that
    /// both cannot be merged
    #[arg(long, value_enum, value_name = "SET", num_args = 0..=1)]
    merge_lora: Option<Option<Set>>,
    /// A PEFT adapter folder that replaces the model's LoRA set for the global image, with its rank and alpha
    #[arg(long, value_name = "DIR")]
    lora_global: Option<PathBuf>,
    /// A PEFT adapter folder that replaces the model's LoRA set for the tiles, with its rank and alpha
    #[arg(long, value_name = "DIR")]
    lora_local: Option<PathBuf>,
    /// Store all weights in this data type; by default the stored types are kept
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<Type>,
    /// Store frozen weights in bf16: half the size, rounded
    #[arg(long, conflicts_with = "dtype")]
    bf16: bool,
    /// Largest size of a weights file, such as `500MB` or `5GB` (10⁹ bytes), `2GiB` (2³⁰); a larger model is
    /// sharded
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = size)]
    shard_size: u64,
}

const EXAMPLES: &str = "\
Examples:
  pheye convert miguelcarv/Pheye-x4-672 pheye-x4          from the hub to safetensors
  pheye convert Pheye-x4-672 pheye-x4 --dtype bf16        at half the size
  pheye convert pheye-x4 adapters --extract-lora          adapters/first and adapters/second, for PEFT
  pheye convert pheye-x4 tuned --lora-local adapters/second
                                                          the same model with another adapter for the tiles
  pheye convert pheye-x4 clip-tiles --merge-lora local    a CLIPVisionModel as the tiles see it

PEFT loads an extracted adapter over CLIP's vision transformer, which transformers before 5.6 has inside the model:
  clip = CLIPVisionModel.from_pretrained(NAME)
  PeftModel.from_pretrained(getattr(clip, \"vision_model\", clip), \"adapters/first\")";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Set {
    /// The set for the global image, `first` in checkpoints
    Global,
    /// The set for the tiles, `second` in checkpoints
    Local,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Type {
    /// 32-bit floating point
    F32,
    /// bfloat16: half the size, a significand of 8 bits
    Bf16,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let merge = match args.merge_lora {
        Some(None) => bail!(
            "--merge-lora needs a set: `global` or `local`. The model has two over one tower, for the global image and \
             for the tiles, and a tower can have only one of them merged"
        ),
        Some(Some(Set::Global)) => Some(LoraSet::Global),
        Some(Some(Set::Local)) => Some(LoraSet::Local),
        None => None,
    };
    let Some(stage) = stage(&args)? else { return Ok(ExitCode::SUCCESS) };
    refuse_existing(FILES.iter().map(|name| args.to.join(name)))?;
    if args.extract_lora {
        let folders = LoraSet::ALL.map(|set| args.to.join(set.adapter()));
        refuse_existing(folders.iter().flat_map(|folder| ADAPTER_FILES.map(|name| folder.join(name))))?;
    }
    let from = super::locate(&args.from)?;
    let lora = [args.lora_global.as_deref(), args.lora_local.as_deref()];
    let model = Conversion::open(&from.folder, &|name: &str| from.find(name), lora)?;
    model.remarks().iter().for_each(|remark| note!("note: {remark}"));
    let keep = match (args.dtype, args.bf16) {
        (Some(Type::F32), _) => Cast::All(DType::F32),
        (Some(Type::Bf16), _) => Cast::All(DType::Bf16),
        (None, true) => Cast::FrozenBf16,
        (None, false) => Cast::Stored,
    };
    let to = Output { folder: stage.path(), keep, shard_size: args.shard_size };
    let mut bar = Loading::named("writing");
    let mut progress = |done, all| bar.at(done, all);
    if args.extract_lora {
        let sets: Vec<_> = LoraSet::ALL.into_iter().filter(|set| model.config().has_lora(*set)).collect();
        ensure!(!sets.is_empty(), "{}: this model has no LoRA set to extract", args.from);
        for set in &sets {
            let folder = stage.path().join(set.adapter());
            model.extract_lora(*set, &Output { folder: &folder, ..to }, &mut progress)?;
        }
        stage.publish("adapter_config.json", &words(&args))?;
        for set in sets {
            let folder = args.to.join(set.adapter());
            tell!("{}: the {set} LoRA set, rank {}", folder.display(), model.config().lora(set).rank);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(set) = merge {
        let written = model.merge_lora(set, &to, &mut progress)?;
        drop(bar);
        stage.publish("config.json", &words(&args))?;
        tell!("{}: the vision tower with the {set} LoRA set merged, {}", args.to.display(), said(&written));
        return Ok(ExitCode::SUCCESS);
    }
    let written = model.save_weights(&to, &mut progress)?;
    drop(bar);
    copy_tokenizer(&from, stage.path())?;
    model.save_config(stage.path())?;
    // Written last, because the folder is a model only once it has a configuration.
    stage.publish(pheye::model::CONFIG_FILE, &words(&args))?;
    let counts = model.config().counts()?;
    let parameters = counts.trained() + counts.frozen();
    tell!("{}: {parameters} parameters, {}", args.to.display(), said(&written));
    Ok(ExitCode::SUCCESS)
}

/// The staging folder that the files are written to until all of them are complete. Returns `None` if an
/// earlier conversion with the same options was killed while it moved its files into place; opening has
/// completed it.
fn stage(args: &Args) -> anyhow::Result<Option<Staged>> {
    let to = args.to.display().to_string();
    match Staged::open(&args.to)? {
        Opened::Completed(what) if what == words(args) => {
            tell!("{to}: completed the conversion that was interrupted");
            Ok(None)
        }
        Opened::Completed(_) => bail!(
            "{to}: completed an earlier conversion by other options, which was interrupted; to convert anew, delete the \
             folder or choose another"
        ),
        Opened::Ready(stage) => {
            let partial = stage.path().display().to_string();
            let on_signal = move || {
                note!("interrupted; the same command starts again, or delete {partial}");
                std::process::exit(130);
            };
            signals::on_stop(on_signal).context("the signal handler could not be installed")?;
            Ok(Some(stage))
        }
    }
}

/// The options that determine the output of a conversion, as one string.
fn words(args: &Args) -> String {
    let Args { from, to: _, extract_lora, merge_lora, lora_global, lora_local, dtype, bf16, shard_size } =
        args;
    format!(
        "{from:?} {extract_lora} {merge_lora:?} {lora_global:?} {lora_local:?} {dtype:?} {bf16} {shard_size}"
    )
}

/// Copies the tokenizer and its configuration, which names the end token.
fn copy_tokenizer(from: &ModelFiles, folder: &Path) -> anyhow::Result<()> {
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let tokenizer = from.tokenizer().with_file_name(name);
        if tokenizer.exists() {
            copy_atomically(&tokenizer, folder.join(name))?;
        }
    }
    Ok(())
}

fn said(written: &pheye::weights::Written) -> String {
    let bytes = indicatif::DecimalBytes(written.bytes);
    match written.files.len() {
        1 => format!("{bytes} in one file"),
        n => format!("{bytes} in {n} shards"),
    }
}

/// Files of a model in either layout. None of them is ever overwritten.
const FILES: [&str; 7] = [
    pheye::model::CONFIG_FILE,
    pheye::model::WEIGHTS_FILE,
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "config.json",
    "checkpoint.pt",
];

const ADAPTER_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// Parses a size such as `500MB` into bytes.
fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
        ("B", 1),
        ("", 1),
    ];
    let upper = text.trim().to_uppercase();
    let digits = upper.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(upper.len());
    let (number, unit) = upper.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, bytes)| *bytes as f64);
    let bytes = number.parse::<f64>().ok().zip(unit).map(|(number, unit)| number * unit);
    bytes
        .filter(|b| (1.0..1e18).contains(b))
        .map(|b| b as u64)
        .ok_or_else(|| "a size from one byte is needed, such as `500MB`, `5GB` or `2GiB`".to_owned())
}
