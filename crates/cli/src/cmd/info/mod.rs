//! `pheye info`: the parts and memory of a model, or the contents of a weights file.

mod baseline;
mod complexity;

use std::process::ExitCode;

use anyhow::{bail, ensure};
use pheye::ModelFiles;
use pheye::baselines::{Config as Baseline, PRESETS as SYSTEMS, is_baseline};
use pheye::model::{CONFIG_FILE, Config, Counts, PRESETS, Pheye, is_released};
use serde::Serialize;

use super::tensors;
use crate::numbers::{bytes, grouped};
use crate::out::say;

/// Show what a model consists of (parameters by part, memory, image tokens), or what a weights file contains
///
/// The figures of a preset or a model folder follow from its configuration; nothing is downloaded or
/// computed. For a weights file (safetensors, a shard, an index of shards, or a file of torch.save), or a
/// folder with weights but no model, every tensor is listed with its data type and shape, and the metadata of
/// the file. No element is read, and nothing in the file is executed. Examples:
///
///   pheye info x2-672
///   pheye info models/nano --tensors
///   pheye info checkpoint.pt --json
///   pheye info x4-672 --complexity
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// A preset (nano, x2-224, x2-448, x2-672, x4-224, x4-448, x4-672, or a system of the paper's Appendix B: fromage,
    /// llava, smallcap, each also with -trained-vit, none-224, monkey-448, perceiver-448, none-448), a model folder, or
    /// a name on the Hugging Face hub (of which only the configuration is downloaded), or a file or folder of weights
    #[arg(value_name = "PRESET|DIR|OWNER/NAME|FILE")]
    model: String,
    /// List the tensors of a model folder instead
    #[arg(long)]
    tensors: bool,
    /// Show what a question costs beside the alternatives (section 2.2 of the paper), then what the paper leaves out
    #[arg(long, conflicts_with = "tensors")]
    complexity: bool,
    /// Text tokens of the question and answer, for --complexity; the paper's figures are those of 65
    #[arg(long, value_name = "N", default_value_t = 65, value_parser = super::at_least_one)]
    text_tokens: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The folder or file `model`, or of a name on the hub its configuration.
fn locate(model: &str) -> anyhow::Result<ModelFiles> {
    #[cfg(feature = "hub")]
    if Config::preset(model).is_none() && pheye::hub::Name::unless_folder(model).is_some() {
        let hub = pheye::hub::Client::new(pheye::hub::Settings::from_env()?);
        let mut shown = crate::progress::Download::default();
        return Ok(pheye::hub::locate_config(&hub, model, &mut |progress| shown.event(progress))?);
    }
    Ok(ModelFiles::folder(model))
}

#[derive(Serialize)]
struct Info<'a> {
    model: &'a str,
    parameters: Counts,
    trained: u64,
    /// Of `trained`, those that no image of this level uses.
    unused: u64,
    frozen: u64,
    image_tokens: usize,
    tiles: usize,
    tokens_per_tile: usize,
    image_pixels: usize,
    cross_attention_blocks: usize,
    context: usize,
    memory: Memory,
}

/// Bytes of the weights and their training state, without activations.
#[derive(Serialize)]
struct Memory {
    run_f32: u64,
    run_bf16: u64,
    run_bf16_frozen: u64,
    train_bf16_frozen: u64,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let ModelFiles { folder: dir, named } = locate(&args.model)?;
    if !args.tensors {
        let config = match Baseline::preset(&args.model) {
            None if is_baseline(&dir) => Some(Baseline::load(&dir)?),
            preset => preset,
        };
        if let Some(config) = config {
            ensure!(!args.complexity, "--complexity is for Pheye");
            return baseline::show(&args.model, &config, args.json);
        }
    }
    let is_model = dir.join(CONFIG_FILE).exists() || is_released(&dir);
    let config = match Config::preset(&args.model) {
        Some(config) if !args.tensors => config,
        _ if dir.is_dir() && !args.tensors && is_model => {
            Config::load_named(&dir, &|name| named.get(name).cloned())?
        }
        _ if dir.exists() => {
            tensors::list(&dir, args.json)?;
            return Ok(ExitCode::SUCCESS);
        }
        None if Baseline::preset(&args.model).is_some() => {
            bail!("--tensors: `{}` is a preset, which has no weights", args.model)
        }
        Some(_) => bail!("--tensors: `{}` is a preset, which has no weights", args.model),
        None => bail!(
            "`{}` is neither a file or folder, nor a name on the hub (OWNER/NAME), nor a preset; presets are {}, {}",
            args.model,
            PRESETS.join(", "),
            SYSTEMS.map(|system| system.name).join(", ")
        ),
    };
    if args.complexity {
        complexity::show(&args.model, &config, args.text_tokens, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let counts = config.counts()?;
    let (trained, frozen) = (counts.trained(), counts.frozen());
    let info = Info {
        model: &args.model,
        parameters: counts,
        trained,
        unused: config.counts_of(|name| Pheye::is_pheye_param(name) && config.is_unused(name))?.trained(),
        frozen,
        image_tokens: config.media_tokens(),
        tiles: 1 + config.connector.local_tiles(),
        tokens_per_tile: config.vision.tokens(),
        image_pixels: config.vision.image_size * config.connector.level,
        cross_attention_blocks: config.cross_blocks(),
        context: config.text.max_position_embeddings,
        memory: Memory {
            run_f32: 4 * (trained + frozen),
            run_bf16: 2 * (trained + frozen),
            run_bf16_frozen: 4 * trained + 2 * frozen,
            // For each trained parameter: f32 value, gradient and the two moments of AdamW.
            train_bf16_frozen: 16 * trained + 2 * frozen,
        },
    };
    if args.json {
        say!("{}", serde_json::to_string(&info)?);
    } else {
        print(&info);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(info: &Info) {
    let p = &info.parameters;
    say!("Pheye {}", info.model);
    say!("");
    say!("parameters");
    for (part, count, state) in [
        ("vision tower", p.vision, "frozen"),
        ("language model", p.text, "frozen"),
        ("cross-attention", p.cross_attention, "trained"),
        ("LoRA, both sets", p.lora, "trained"),
        ("connector", p.connector, "trained"),
    ] {
        say!("  {part:<17}{:>15}  {state}", grouped(count));
    }
    say!("  {:<17}{:>15}", "frozen", grouped(info.frozen));
    let unused = match info.unused {
        0 => String::new(),
        n => format!(
            "  ({} of them in norms of levels that it does not have, which stay as they are)",
            grouped(n)
        ),
    };
    say!("  {:<17}{:>15}{unused}", "trained", grouped(info.trained));
    say!("");
    say!(
        "image            {0} x {0} pixels, {1} tiles of {2} tokens",
        info.image_pixels,
        info.tiles,
        info.tokens_per_tile
    );
    say!("image tokens       {}", info.image_tokens);
    say!("cross-attention    {} blocks", info.cross_attention_blocks);
    say!("context            {} tokens", info.context);
    say!("");
    say!("memory for weights (activations come on top)");
    say!(
        "  to run           {} in f32, {} in bf16, {} with trained weights in f32 and frozen ones in bf16",
        bytes(info.memory.run_f32),
        bytes(info.memory.run_bf16),
        bytes(info.memory.run_bf16_frozen)
    );
    say!(
        "  to train         {} with frozen weights in bf16, AdamW in f32",
        bytes(info.memory.train_bf16_frozen)
    );
}
