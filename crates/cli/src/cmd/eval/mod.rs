//! `pheye eval`: measures a model on the benchmarks of the paper, and the share of a question set that it answers
//! correctly.

mod benchmark;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{bail, ensure};
use pheye::Assistant;
use pheye::data::Manifest;
use pheye::eval::benchmark::{BENCHMARKS, Benchmark};
use pheye::eval::{Accuracy, AccuracyOptions, Asked, Judged};
use pheye::image::DecodeOptions;
use pheye::model::GenerationConfig;
use pheye::ops::Cx;
use pheye::train::Config;

use super::{DeviceArg, ModelArg};
use crate::out::say;
use crate::progress::Progress;
use crate::show::Shown;

/// Measure a model on a benchmark of the paper, or on the test questions of a config
///
/// Without --model, the nano model of this repository is measured. `pheye eval configs/nano.toml --json` prints
/// {"accuracy": …}.
///
/// With the name of a benchmark, its official files are read from the folder --data, where they have their usual names
/// (--questions-file, --annotations and --images name others). The answers are kept in the folder --out as JSON lines;
/// the same command continues an evaluation that was stopped and ends with the same files:
///
///   predictions.jsonl  a line for each question: answer, log-probability, number of tokens
///   times.jsonl        the time of each batch
///   results.json       the answers in the form that the benchmark's evaluation code or server takes
///   scores.json        the scores; scored.jsonl has those of each question or image
///
/// Benchmarks, with their splits and the files in --data:
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_long_help = benchmark::list())]
pub(crate) struct Args {
    /// The name of a benchmark, or a config whose `data.test` names question sets
    #[arg(value_name = "CONFIG|BENCHMARK")]
    what: PathBuf,
    #[command(flatten)]
    benchmark: benchmark::BenchmarkArgs,
    #[command(flatten)]
    model: ModelArg,
    /// Ask only the first N questions
    #[arg(long, value_name = "N", value_parser = super::at_least_one)]
    questions: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArg,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let name = args.what.to_str().unwrap_or_default();
    if let Some(benchmark) = Benchmark::named(name).filter(|_| !args.what.is_file()) {
        let how = benchmark::Common { questions: args.questions, json: args.json };
        return benchmark::run(benchmark, &args.benchmark, &args.model, &args.device, how);
    }
    if args.what.extension().is_none() && !args.what.exists() {
        let known: Vec<&str> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
        bail!(
            "{}: neither a config nor a benchmark; the benchmarks are {}",
            args.what.display(),
            known.join(", ")
        );
    }
    args.benchmark.none_given()?;
    let config = Config::load(&args.what)?;
    let cx = args.device.open()?;
    let assistant = args.model.load(&cx)?;
    let (accuracy, _) = measure(&cx, &config, &args.what, &assistant, args.questions)?;
    if args.json {
        say!("{}", serde_json::to_string(&accuracy)?);
    } else {
        say!("{}", sentence(&accuracy));
    }
    Ok(ExitCode::SUCCESS)
}

/// An accuracy as a sentence.
pub(crate) fn sentence(a: &Accuracy) -> String {
    format!("{:.2} % of {} test questions answered right ({})", 100.0 * a.accuracy, a.questions, a.right)
}

/// A question set and its answers.
type Answered = (Manifest, Vec<Judged>);

/// Asks the test questions of `config`, with a progress bar. Returns the accuracy over all sets and the
/// answers.
pub(crate) fn measure(
    cx: &Cx,
    config: &Config,
    path: &Path,
    assistant: &Assistant,
    questions: Option<usize>,
) -> anyhow::Result<(Accuracy, Vec<Answered>)> {
    ensure!(!config.data.test.is_empty(), "{}: data.test names no question set", path.display());
    let mut total = Accuracy { accuracy: 0.0, right: 0, questions: 0 };
    let mut sets = Vec::new();
    for test in &config.data.test {
        let manifest = Manifest::open(config.resolve(test))?;
        let images = config.eval.batch.unwrap_or(config.train.batch);
        let questions = questions.or(config.eval.questions);
        let options = AccuracyOptions { images, questions };
        let preprocess = assistant.preprocess();
        let answer = |asked: &Asked| -> pheye::Result<Vec<String>> {
            let tiles: Vec<_> = asked.images.iter().map(|p| preprocess.pixels(p)).collect();
            let tiles: Vec<_> = tiles.iter().collect();
            let how = GenerationConfig::greedy(pheye::LONGEST_ANSWER);
            let answers = assistant.ask(cx, &tiles, &asked.questions, &asked.about, &how, None)?;
            Ok(answers.into_iter().map(|a| a.text).collect())
        };
        let mut bar: Option<Progress> = None;
        let (a, judged) = pheye::eval::accuracy(&manifest, options, answer, |done, all| {
            bar.get_or_insert_with(|| Progress::new(all as u64, "questions")).at(done as u64);
        })?;
        bar.into_iter().for_each(Progress::finish);
        total.right += a.right;
        total.questions += a.questions;
        sets.push((manifest, judged));
    }
    total.accuracy = total.right as f64 / total.questions as f64;
    Ok((total, sets))
}

/// Up to `count` answered questions, evenly spaced over the first question set, with their images.
pub(crate) fn pick(sets: &[Answered], count: usize) -> anyhow::Result<Vec<Shown>> {
    let Some((manifest, judged)) = sets.first() else { return Ok(Vec::new()) };
    let mut shown = Vec::new();
    for j in pheye::spread(judged, count) {
        let bytes = manifest.store.read(&j.image)?;
        let image = pheye::image::decode(&bytes, &j.image, &DecodeOptions::default())?;
        let kind = match Path::new(&j.image).extension().and_then(|e| e.to_str()) {
            Some("jpg" | "jpeg") => "image/jpeg",
            Some("webp") => "image/webp",
            _ => "image/png",
        };
        let (question, answer, expected) = (j.question.clone(), j.answer.clone(), j.expected.clone());
        shown.push(Shown { image, file: (bytes, kind), question, answer, expected });
    }
    Ok(shown)
}

/// Writes `text` to `path` atomically.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    Ok(pheye::weights::atomic_write(path, |out| out.write_all(text.as_bytes()))?)
}
