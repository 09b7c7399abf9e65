//! `pheye bench`: times each stage of a full-size model.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use pheye::model::{Batch, Config, GenerationConfig, Hooks, Options, PRESETS, Pheye, Recompute};
use pheye::ops::lora::Dropout;
use pheye::ops::{Cx, Graphs, RandomInit};
use pheye::tensor::{Device, Grads, Init, ParamTable, Scope, Source, Tensor};
use serde::Serialize;

use super::DeviceArg;
use crate::numbers::short;
use crate::out::say;
use crate::progress::{Loading, Waiting};

/// Time each stage of a full-size model
///
/// Without `--model`, no file is read: the weights, pixels and token ids are random, and the time is that of
/// the real model. With `--model`, `load` is the time to load the model, and `load_peak_rss_gb` (JSON only)
/// the peak memory while loading. Inference has four stages: `encode` (vision tower and connector),
/// `cross_kv` (keys and values of the image tokens), `prefill` (the prompt, to the first generated token) and
/// `decode_token` (the median time of each further token). Training has one: `step`, forward and backward of
/// one batch. Each figure is the median over the repetitions, in JSON in seconds. Example:
/// `pheye bench --preset x2-672 --device cpu --json`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Preset that sets the size of the model
    #[arg(long, default_value = "x2-672", value_name = "PRESET")]
    preset: String,
    /// Load the weights of this model, a folder or a name on the Hugging Face hub, instead of using `--preset` with random
    /// ones
    #[arg(long, value_name = "DIR|OWNER/NAME", conflicts_with = "preset")]
    model: Option<String>,
    /// What to time
    #[arg(long, value_enum, default_value_t = Mode::Infer)]
    mode: Mode,
    /// Data type of the weights; in training, of the frozen weights (trained ones are f32). A GPU supports
    /// bf16 only
    #[arg(long, value_enum, default_value_t = Weights::Bf16)]
    weights: Weights,
    /// Length of each prompt in tokens
    #[arg(long, default_value_t = 65, value_name = "N", value_parser = super::at_least_one)]
    prompt: usize,
    /// Number of generated tokens
    #[arg(long, default_value_t = 17, value_name = "N", value_parser = super::at_least_one)]
    new: usize,
    /// Batch size: number of images, each with one prompt
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = super::at_least_one)]
    batch: usize,
    /// Number of timed repetitions; if it is more than 1, one untimed warm-up runs first
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = super::at_least_one)]
    repeat: usize,
    /// Number of vision-tower blocks whose activations training recomputes in backward: less memory, more
    /// time
    #[arg(long, default_value_t = 0, value_name = "N")]
    recompute_vision: usize,
    /// Number of language-model blocks whose activations training recomputes in backward
    #[arg(long, default_value_t = 0, value_name = "N")]
    recompute_text: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Generate an answer about an image
    Infer,
    /// Run forward and backward of a training batch
    Train,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Weights {
    /// 32-bit floating point
    F32,
    /// bfloat16: half the memory
    Bf16,
    /// int8 with one f32 scale per row for the weights of linear layers, bf16 for the others
    Int8,
}

/// The stages of one repetition with their times in seconds.
type Row = Vec<(&'static str, f64)>;

#[derive(Serialize)]
struct Report<'a> {
    /// Name of the preset, or path of the model's folder.
    preset: &'a str,
    device: String,
    weights: Weights,
    mode: Mode,
    batch: usize,
    prompt: usize,
    threads: usize,
    #[serde(flatten)]
    seconds: serde_json::Map<String, serde_json::Value>,
    /// Peak resident memory of the process after loading, in GB (10⁹ bytes); absent without `--model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    load_peak_rss_gb: Option<f64>,
    /// Peak resident memory of the process, in GB (10⁹ bytes); null if the operating system does not report
    /// it.
    peak_rss_gb: Option<f64>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let files = args.model.as_deref().map(super::locate).transpose()?;
    let named = |name: &str| files.as_ref().and_then(|files| files.find(name));
    let config = match &files {
        Some(files) => Config::load_named(&files.folder, &named)?,
        None => match Config::preset(&args.preset) {
            Some(config) => config,
            None => bail!("--preset: `{}` is none of {}", args.preset, PRESETS.join(", ")),
        },
    };
    let context = config.text.max_position_embeddings;
    ensure!(
        args.prompt + args.new <= context,
        "--prompt and --new together exceed the context of {context} tokens"
    );
    let int8_training = args.mode == Mode::Train && args.weights == Weights::Int8;
    ensure!(!int8_training, "--weights int8 is for inference: backward needs f32 or bf16");
    let cx = args.device.open()?;
    let gpu = matches!(cx.device, Device::Gpu(_));
    ensure!(!gpu || args.weights == Weights::Bf16, "--weights {}: a GPU has bf16 only", args.weights.name());
    let options = args.weights.options(args.mode);
    let mut seconds = serde_json::Map::new();
    let mut shown = Vec::new();
    let (mut model, load_peak_rss_gb) = match &files {
        Some(files) => {
            let (start, mut bar) = (Instant::now(), Loading::new());
            let model = Pheye::load_named(&files.folder, options, &named, |done, all| bar.at(done, all))?;
            shown.push(("load", start.elapsed().as_secs_f64()));
            seconds.insert("load".to_owned(), start.elapsed().as_secs_f64().into());
            (model, peak_rss_gb())
        }
        None => {
            let _waiting = Waiting::new("making random weights");
            (random(&config, options)?, None)
        }
    };
    let waiting = Waiting::new("timing");
    let rows: Vec<Row> = match args.mode {
        Mode::Infer => {
            model.move_to(&cx.device, &ParamTable::default())?;
            repeat(args.repeat, || infer(&cx, &model, &args))?
        }
        Mode::Train => {
            let table = model.train(Pheye::is_pheye_param)?;
            model.set_recompute(Recompute { vision: args.recompute_vision, text: args.recompute_text });
            let _masters = model.move_to(&cx.device, &table)?;
            let mut grads = Grads::on(&cx.device, table)?;
            let mut graphs = Graphs::default();
            repeat(args.repeat, || step(&cx, &model, &args, &mut grads, &mut graphs))?
        }
    };
    drop(waiting);
    for (i, (stage, _)) in rows.first().into_iter().flatten().enumerate() {
        shown.push((*stage, median(rows.iter().map(|r| r[i].1).collect())));
    }
    seconds.extend(shown.iter().map(|(stage, time)| ((*stage).to_owned(), (*time).into())));
    let name = args.model.as_ref().unwrap_or(&args.preset).clone();
    let report = Report {
        preset: &name,
        device: cx.device.to_string(),
        weights: args.weights,
        mode: args.mode,
        batch: args.batch,
        prompt: args.prompt,
        threads: rayon::current_num_threads(),
        seconds,
        load_peak_rss_gb,
        peak_rss_gb: peak_rss_gb(),
    };
    if args.json {
        say!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report, &shown);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the stages in their order.
fn print(r: &Report, stages: &[(&str, f64)]) {
    say!("{} on {}, {} threads, {} weights", r.preset, r.device, r.threads, r.weights.name());
    for (stage, seconds) in stages {
        let rate = match *stage {
            "decode_token" => format!("  {:.1} tokens/s", r.batch as f64 / seconds),
            "encode" | "step" => format!("  {:.1} images/s", r.batch as f64 / seconds),
            _ => String::new(),
        };
        say!("{stage:<14} {:>10}{rate}", short(*seconds));
    }
    if let Some(gb) = r.peak_rss_gb {
        say!("{:<14} {:>10}", "peak memory", format!("{gb:.2} GB"));
    }
}

impl Weights {
    fn options(self, mode: Mode) -> Options {
        match (self, mode) {
            (Weights::F32, _) => Options::default(),
            (_, Mode::Train) => Options::FROZEN_BF16,
            (Weights::Bf16, Mode::Infer) => Options::BF16,
            (Weights::Int8, Mode::Infer) => Options::INT8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Weights::F32 => "f32",
            Weights::Bf16 => "bf16",
            Weights::Int8 => "int8",
        }
    }
}

/// A model with random initial weights.
fn random(config: &Config, options: Options) -> anyhow::Result<Pheye> {
    let mut source = RandomInit::new(0).with_dtype(move |name| options.dtype(name));
    Ok(Pheye::build(config, &mut Scope::new(&mut source, ""))?)
}

/// Runs `once` `times` times and returns the results. If `times` is more than 1, an untimed warm-up runs
/// first.
fn repeat(times: usize, mut once: impl FnMut() -> anyhow::Result<Row>) -> anyhow::Result<Vec<Row>> {
    if times > 1 {
        once()?;
    }
    (0..times).map(|_| once()).collect()
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    (x[(x.len() - 1) / 2] + x[x.len() / 2]) / 2.0
}

/// Random pixels `[batch · tiles, 3, side, side]` of `--batch` images, and one random prompt for each image.
fn inputs(model: &Pheye, args: &Args) -> anyhow::Result<(Tensor, Vec<Vec<u32>>)> {
    let c = model.config();
    let (tiles, side) = (args.batch * (1 + c.connector.local_tiles()), c.vision.image_size);
    let pixels = RandomInit::new(1).tensor("pixels", [tiles, 3, side, side].into(), Init::Normal(1.0));
    let ids = RandomInit::new(1).tensor("ids", [args.batch, args.prompt].into(), Init::Uniform(1.0));
    let id = |u: &f32| ((0.5 + 0.5 * u) * (c.text.vocab_size - 1) as f32) as u32;
    let prompts = ids.f32()?.chunks(args.prompt).map(|row| row.iter().map(id).collect()).collect();
    Ok((pixels, prompts))
}

/// Waits until all work queued on the device has finished, by copying one element of `t` to the host.
fn finish(cx: &Cx, t: &Tensor) -> anyhow::Result<()> {
    if matches!(cx.device, Device::Gpu(_)) {
        t.view(0, [1])?.to_vec_f32()?;
    }
    Ok(())
}

fn infer(cx: &Cx, model: &Pheye, args: &Args) -> anyhow::Result<Row> {
    let (pixels, prompts) = inputs(model, args)?;
    let start = Instant::now();
    let media = model.encode(cx, &pixels, args.batch)?;
    finish(cx, &media)?;
    cx.arena.trim();
    let encode = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let kvs = model.cross_kv(cx, &media)?;
    kvs.iter().flatten().next_back().map_or(Ok(()), |kv| finish(cx, kv))?;
    let cross_kv = start.elapsed().as_secs_f64();
    let image: Vec<usize> = (0..args.batch).collect();
    let how = GenerationConfig::greedy(args.new);
    let (start, mut times) = (Instant::now(), Vec::new());
    let mut on_token = |i, _| {
        if i + 1 == args.batch {
            times.push(start.elapsed().as_secs_f64());
        }
    };
    let hooks = Hooks { on_token: Some(&mut on_token), ends: None };
    model.generate(cx, &kvs, &prompts, &image, &how, hooks)?;
    let prefill = *times.first().context("no token was generated")?;
    let mut row = vec![("encode", encode), ("cross_kv", cross_kv), ("prefill", prefill)];
    if times.len() > 1 {
        row.push(("decode_token", median(times.windows(2).map(|t| t[1] - t[0]).collect())));
    }
    Ok(row)
}

/// Forward and backward of one batch, on a GPU as a recording that is replayed, as in a training run.
fn step(cx: &Cx, model: &Pheye, args: &Args, grads: &mut Grads, graphs: &mut Graphs) -> anyhow::Result<Row> {
    let (pixels, prompts) = inputs(model, args)?;
    let ids = prompts.concat();
    let batch = Batch {
        pixels: cx.upload(&pixels)?,
        images: args.batch,
        targets: ids.iter().map(|&id| id as i64).collect(),
        ids,
        lengths: vec![args.prompt; args.batch],
        image: (0..args.batch).collect(),
    };
    let dropout = Some(Dropout { p: 0.05, seed: 0, rng_offset: 0 });
    let start = Instant::now();
    let work = |cx: &Cx| model.queue_loss_and_grads(cx, &batch, dropout, grads);
    cx.replay(graphs, work)?.read()?;
    grads.clear()?;
    Ok(vec![("step", start.elapsed().as_secs_f64())])
}

/// Peak resident memory of this process in GB (10⁹ bytes), from `/proc/self/status`; `None` without that
/// file.
fn peak_rss_gb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e9)
}
