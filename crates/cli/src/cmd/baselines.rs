//! `pheye baselines`: trains the systems of the paper's Appendix B side by side, and compares their captions.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use pheye::Captioner;
use pheye::baselines::Config;
use pheye::data::{Content, Manifest};
use pheye::image::DecodeOptions;
use pheye::metrics::caption::{Tokenized, meteor, scores};
use pheye::metrics::read::{CaptionSet, tokenize};
use pheye::model::{GenerationConfig, Options};
use pheye::ops::Cx;
use pheye::train::{self, Set};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{DeviceArg, at_least_one};
use crate::numbers::{bytes, grouped};
use crate::out::{note, say};
use crate::progress::Progress;

/// Train the systems that Pheye was chosen from, and compare their captions (Appendix B of the paper)
///
/// Each system of the table is trained by the same config, with as many steps, for several seeds. The captions of the
/// test images are then scored. A system that is finished is passed over, and one that was stopped goes on from its last
/// checkpoint. `scripts/baselines` makes the data and the language model of the tables first. Examples:
///
///   pheye baselines table4
///   pheye baselines table5 --seeds 1 --set train.steps=100 --out runs/quick
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// Which table of the paper
    #[arg(value_enum)]
    table: Table,
    /// The config of every run, instead of configs/baselines/TABLE.toml; `model.preset` and `train.seed` are set
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for the runs and the results, instead of runs/baselines/TABLE
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Number of seeds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    seeds: usize,
    /// Test images of each set of `data.test`
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = at_least_one)]
    images: usize,
    /// Set a key of the config, as in `--set train.steps=100`; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// METEOR's jar, for its score
    #[arg(long, value_name = "JAR")]
    meteor: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Table {
    /// FROMAGe, LLaVA and SmallCap, with the tower frozen and trained
    Table4,
    /// No resampler at one and at two levels, Monkey and Perceiver, with LoRA
    Table5,
}

impl Table {
    /// The systems in the order of the paper's table.
    fn systems(self) -> &'static [&'static str] {
        match self {
            Table::Table4 => &[
                "fromage",
                "llava",
                "smallcap",
                "fromage-trained-vit",
                "llava-trained-vit",
                "smallcap-trained-vit",
            ],
            Table::Table5 => &["none-224", "monkey-448", "perceiver-448", "none-448"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Table::Table4 => "table4",
            Table::Table5 => "table5",
        }
    }
}

/// What was measured of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    system: String,
    seed: usize,
    trained: u64,
    steps: u64,
    cider: f64,
    bleu4: f64,
    meteor: Option<f64>,
    /// Median seconds of a step.
    step_seconds: Option<f64>,
    /// Peak memory of the run in bytes: of the process, or on a GPU of its memory.
    memory: u64,
    /// What the figures depend on: the config of the run, the number of images, and whether METEOR was asked for.
    settings: Value,
}

/// What the models are asked, as in the paper.
const PROMPT: &str = "This image shows ";
/// Longest caption in tokens, of which a tokenizer that spells words needs one for each letter.
const LONGEST: usize = 96;
/// Keys of the config that the command sets itself.
const OWN: [&str; 4] = ["model.preset", "model.out", "model.config.resampler", "train.seed"];

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let table = args.table;
    let default = || PathBuf::from(format!("configs/baselines/{}.toml", table.name()));
    let file = args.config.clone().unwrap_or_else(default);
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("runs/baselines/{}", table.name())));
    let config = load(&file, &args.set)?;
    for key in OWN {
        let given = args.set.iter().any(|set| set.trim_start().starts_with(key));
        ensure!(!given, "--set {key}: this command sets the key itself");
    }
    ensure!(
        !config.data.test.is_empty(),
        "{}: data.test names no set whose captions are compared",
        file.display()
    );
    for path in &config.data.test {
        Manifest::open(config.resolve(path))?;
    }
    std::fs::create_dir_all(&out).with_context(|| format!("{}: cannot be created", out.display()))?;
    let cx = args.device.open()?;
    let mut rows: Vec<Measured> = Vec::new();
    for seed in 1..=args.seeds {
        for system in table.systems() {
            let folder = out.join(format!("{system}-seed-{seed}"));
            let result = folder.join("result.json");
            let sets = sets(&args, &file, system, seed)?;
            let settings = settings(&args, &load(&file, &sets)?)?;
            let row = match std::fs::read(&result) {
                Ok(text) => {
                    let row: Measured = serde_json::from_slice(&text)
                        .with_context(|| format!("{}: is damaged; remove it", result.display()))?;
                    ensure!(
                        row.settings == settings,
                        "{}: was measured with other settings; choose another --out, or the same settings",
                        result.display()
                    );
                    row
                }
                Err(_) => {
                    train_one(&args, &file, &sets, &folder)?;
                    let row = measure(&args, &cx, &file, &sets, (system, seed), &folder, settings)?;
                    super::eval::write(&result, &format!("{}\n", serde_json::to_string_pretty(&row)?))?;
                    row
                }
            };
            note!("{system}, seed {seed}: CIDEr {:.1}, BLEU-4 {:.1}", 100.0 * row.cider, 100.0 * row.bleu4);
            rows.push(row);
        }
    }
    let page = page(table, &rows);
    super::eval::write(&out.join("results.json"), &format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
    super::eval::write(&out.join("results.md"), &page)?;
    match args.json {
        true => say!("{}", serde_json::to_string(&json!({"table": table.name(), "runs": rows}))?),
        false => say!("{}", page.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The keys of the config that differ between the runs. The sizes of a resampler follow those of the tower.
fn sets(args: &Args, file: &Path, system: &str, seed: usize) -> anyhow::Result<Vec<String>> {
    let mut sets = vec![format!("model.preset=\"{system}\""), format!("train.seed={seed}")];
    sets.extend(args.set.iter().cloned());
    let preset = Config::preset(system).with_context(|| format!("there is no system {system}"))?;
    if preset.resampler.is_some() {
        // The sizes of the tower are those of the same config without a resampler.
        let mut plain = sets.clone();
        plain[0] = "model.preset=\"none-448\"".to_owned();
        let sized = Config { resampler: preset.resampler, ..load(file, &plain)?.baseline()? };
        let value = toml_of(&serde_json::to_value(sized.with_sizes_of_tower().resampler)?);
        sets.push(format!("model.config.resampler={value}"));
    }
    Ok(sets)
}

/// What the figures of a run depend on.
fn settings(args: &Args, config: &train::Config) -> anyhow::Result<Value> {
    let mut config = config.echo()?;
    if let Some(train) = config.get_mut("train").and_then(Value::as_object_mut) {
        train.remove("out");
    }
    Ok(json!({ "config": config, "images": args.images, "meteor": args.meteor.is_some() }))
}

/// An inline table of TOML, of numbers, texts and truth values.
fn toml_of(value: &serde_json::Value) -> String {
    let keys = value.as_object().into_iter().flatten();
    let pairs: Vec<String> = keys.map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn load(file: &Path, sets: &[String]) -> anyhow::Result<train::Config> {
    let sets = sets.iter().map(|set| set.parse::<Set>().map_err(anyhow::Error::msg));
    let config = train::Config::load_with(file, &sets.collect::<anyhow::Result<Vec<_>>>()?)?;
    ensure!(
        config.task == train::Task::Baseline,
        "{}: the task is `{}`, and must be `baseline`",
        file.display(),
        config.task.name()
    );
    Ok(config)
}

/// Trains in a process of its own, so that its peak memory is that of this run alone.
fn train_one(args: &Args, file: &Path, sets: &[String], folder: &Path) -> anyhow::Result<()> {
    // The tokenizer is written last.
    if folder.join("model/tokenizer.json").exists() {
        return Ok(());
    }
    note!("training {}", folder.display());
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("train").arg(file).arg("--out").arg(folder).arg("--device").arg(args.device.name());
    command.args(sets.iter().flat_map(|set| ["--set", set]));
    if folder.join("checkpoints").exists() {
        command.arg("--resume");
    }
    let status = command.status().context("the training could not be started")?;
    if !status.success() {
        bail!("{}: the training ended with {status}", folder.display());
    }
    Ok(())
}

/// Describes the test images and scores the captions.
fn measure(
    args: &Args,
    cx: &Cx,
    file: &Path,
    sets: &[String],
    (system, seed): (&str, usize),
    folder: &Path,
    settings: Value,
) -> anyhow::Result<Measured> {
    let config = load(file, sets)?;
    let mut captioner = Captioner::load(&folder.join("model"), Options::default(), |_, _| ())?;
    captioner.move_to(&cx.device)?;
    let mut set = CaptionSet::default();
    for path in &config.data.test {
        let manifest = Manifest::open(config.resolve(path))?;
        describe(cx, &captioner, &manifest, args.images, &mut set)?;
    }
    ensure!(!set.captions.is_empty(), "{}: data.test has no captions", file.display());
    let items: Vec<Tokenized> = tokenize(&set);
    let all = scores(&items);
    let meteor = args.meteor.as_ref().map(|jar| meteor(&items, jar)).transpose()?;
    let (mut seconds, mut memory, mut steps) = (Vec::new(), 0, 0);
    train::rows(&folder.join("timing.jsonl"), |step, row| {
        steps = step;
        seconds.extend(row["seconds"].as_f64());
        let used = row["gpu_bytes"].as_u64().or_else(|| row["peak_resident_bytes"].as_u64());
        memory = used.unwrap_or(0).max(memory);
    })?;
    seconds.sort_by(f64::total_cmp);
    Ok(Measured {
        system: system.to_owned(),
        seed,
        trained: captioner.model.config().counts()?.trained,
        steps,
        cider: all.cider_d.corpus,
        bleu4: all.bleu[3].corpus,
        meteor: meteor.map(|score| score.corpus),
        step_seconds: seconds.get(seconds.len() / 2).copied(),
        memory,
        settings,
    })
}

/// Adds the greedy captions of the first `images` images of `manifest` to `set`.
fn describe(
    cx: &Cx,
    captioner: &Captioner,
    manifest: &Manifest,
    images: usize,
    set: &mut CaptionSet,
) -> anyhow::Result<()> {
    const BATCH: usize = 20;
    let items = manifest.items.iter().filter(|item| item.has(Content::Captions) && item.image.is_some());
    let items: Vec<_> = items.take(images).collect();
    let (preprocess, how) = (captioner.preprocess(), GenerationConfig::greedy(LONGEST));
    let mut bar = Progress::new(items.len() as u64, "captions");
    for (number, some) in items.chunks(BATCH).enumerate() {
        let mut tiles = Vec::new();
        for item in some {
            let image = item.image.as_deref().unwrap_or_default();
            tiles.push(preprocess.pixels(&manifest.store.image(image, &DecodeOptions::default())?));
        }
        let about: Vec<usize> = (0..some.len()).collect();
        let tiles: Vec<_> = tiles.iter().collect();
        let answers = captioner.ask(cx, &tiles, &vec![PROMPT; some.len()], &about, &how)?;
        for (item, answer) in some.iter().zip(answers) {
            set.captions.push(answer.text);
            set.references.push(item.caption.iter().cloned().collect());
        }
        bar.at((number * BATCH + some.len()) as u64);
    }
    bar.finish();
    Ok(())
}

/// The table in Markdown: means over the seeds, with the lowest and highest.
fn page(table: Table, rows: &[Measured]) -> String {
    let mut out = String::from(
        "| system | trained parameters | CIDEr | BLEU-4 | METEOR | ms a step | peak memory | paper, trained |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let mut order: Vec<(f64, &str)> = Vec::new();
    for system in table.systems() {
        let of: Vec<&Measured> = rows.iter().filter(|row| row.system == *system).collect();
        let Some(first) = of.first() else { continue };
        let spread = |values: Vec<f64>| {
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            (mean, format!("{mean:.1} ({low:.1} to {high:.1})"))
        };
        let cider = spread(of.iter().map(|row| 100.0 * row.cider).collect());
        let bleu = spread(of.iter().map(|row| 100.0 * row.bleu4).collect()).1;
        let meteor: Vec<f64> = of.iter().filter_map(|row| Some(100.0 * row.meteor?)).collect();
        let meteor = if meteor.is_empty() { "not computed".to_owned() } else { spread(meteor).1 };
        let times: Vec<f64> = of.iter().filter_map(|row| Some(1e3 * row.step_seconds?)).collect();
        let ms = times.iter().sum::<f64>() / times.len().max(1) as f64;
        let memory = of.iter().map(|row| row.memory).max().unwrap_or(0);
        let paper = pheye::baselines::PRESETS.iter().find(|preset| preset.name == *system);
        let paper = paper.map_or("", |preset| preset.paper);
        let _ = writeln!(
            out,
            "| {system} | {} | {} | {bleu} | {meteor} | {ms:.0} | {} | {paper} |",
            grouped(first.trained),
            cider.1,
            bytes(memory)
        );
        order.push((cider.0, system));
    }
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let names: Vec<&str> = order.iter().map(|(_, name)| *name).collect();
    let _ = writeln!(out, "\nBy CIDEr: {}.", names.join(", "));
    out
}
