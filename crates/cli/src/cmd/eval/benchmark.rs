//! `pheye eval BENCHMARK`: a benchmark of the paper from its official files.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pheye::Assistant;
use pheye::data::Store;
use pheye::eval::benchmark::{
    self, Answered, Ask, Asking, BENCHMARKS, Benchmark, Details, Files, Item, Prediction, Predictions,
    Scores, Split,
};
use pheye::image::{DecodeOptions, Rgb8, Tiles, resize_bicubic, shrink};
use pheye::metrics::relative_size::Tertile;
use pheye::metrics::vqa::Totals;
use pheye::model::GenerationConfig;
use pheye::ops::Cx;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::write;
use crate::cmd::report::Sample;
use crate::cmd::{DeviceArg, ModelArg, score};
use crate::look;
use crate::out::{note, say};
use crate::progress::Progress;

/// The options of a benchmark.
#[derive(clap::Args)]
pub(crate) struct BenchmarkArgs {
    /// Folder with the official files of the benchmark; for easy-vqa and scene-text, the data set itself
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder for the answers and scores
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The split, if not the first of the benchmark
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// The file of the questions or images, if it is not at its usual place in --data
    #[arg(long, value_name = "FILE")]
    questions_file: Option<PathBuf>,
    /// The file of the references
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    /// The folder or archive of the images
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// What is asked, instead of the benchmark's prompt; `{question}` stands for the question
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Longest answer in tokens, instead of the benchmark's
    #[arg(long, value_name = "N", value_parser = crate::cmd::at_least_one)]
    new_tokens: Option<usize>,
    /// Images per batch; 8 by default
    #[arg(long, value_name = "N", value_parser = crate::cmd::at_least_one)]
    batch: Option<usize>,
    /// Where the texts or objects of the images are, for scores by the size of what is asked about (section 3.3 of the
    /// paper): TextVQA_Rosetta_OCR_v0.2_val.json for textvqa, instances_val2014.json for vqav2. Scene text has them
    #[arg(long, value_name = "FILE")]
    regions: Option<PathBuf>,
    /// Also measure the share of cross-attention on the global image (Appendix C of the paper)
    #[arg(long)]
    attention: bool,
    /// Keep N answered samples with heat maps of where the model looked, for `pheye report`; 6 by default
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// First scale each image down to a square of this side, as in the last row of the paper's Table 1; without a
    /// value, to the size of one view of the model
    #[arg(long, value_name = "PIXELS", num_args = 0..=1, default_missing_value = "0", require_equals = true)]
    down_scale: Option<usize>,
}

/// The options that benchmarks share with configs.
pub(crate) struct Common {
    pub(crate) questions: Option<usize>,
    pub(crate) json: bool,
}

impl BenchmarkArgs {
    /// Images per batch.
    fn images(&self) -> usize {
        self.batch.unwrap_or(8)
    }

    /// Fails if an option is given that only benchmarks have.
    pub(super) fn none_given(&self) -> anyhow::Result<()> {
        let given = [
            ("--data", self.data.is_some()),
            ("--out", self.out.is_some()),
            ("--split", self.split.is_some()),
            ("--questions-file", self.questions_file.is_some()),
            ("--annotations", self.annotations.is_some()),
            ("--images", self.images.is_some()),
            ("--prompt", self.prompt.is_some()),
            ("--new-tokens", self.new_tokens.is_some()),
            ("--batch", self.batch.is_some()),
            ("--samples", self.samples.is_some()),
            ("--regions", self.regions.is_some()),
            ("--attention", self.attention),
            ("--down-scale", self.down_scale.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((option, _)) => {
                anyhow::bail!("{option} goes with the name of a benchmark, not with a config")
            }
            None => Ok(()),
        }
    }
}

/// The benchmarks with their splits and files, for `--help`.
pub(super) fn list() -> String {
    let mut out = String::from("Benchmarks, with their splits and the names of their files in --data:\n");
    for benchmark in BENCHMARKS {
        for (i, split) in benchmark.splits.iter().enumerate() {
            let name = if i == 0 { benchmark.name } else { "" };
            let files = [Some(split.questions), split.annotations, Some(split.images)];
            let files: Vec<&str> = files.into_iter().flatten().filter(|name| !name.is_empty()).collect();
            let files = if files.is_empty() {
                "a manifest, folder or zip archive".to_owned()
            } else {
                files.join(", ")
            };
            let _ = writeln!(out, "  {name:<11}{:<10}{files}", split.name);
        }
    }
    out + "
Examples:
  pheye eval textvqa --data /data/textvqa --model miguelcarv/Pheye-x4-672 --out runs/textvqa
  pheye eval scene-text --data test.zip --out runs/scene-text --attention
  pheye eval vqav2 --split test-dev --data /data/vqav2 --model runs/stage3/model --out runs/test-dev"
}

pub(super) fn run(
    benchmark: &'static Benchmark,
    args: &BenchmarkArgs,
    model: &ModelArg,
    device: &DeviceArg,
    common: Common,
) -> anyhow::Result<ExitCode> {
    let name = benchmark.name;
    let split = split(benchmark, args.split.as_deref())?;
    let data = args
        .data
        .as_deref()
        .with_context(|| format!("{name}: --data is missing: the folder of its files"))?;
    let out =
        args.out.as_deref().with_context(|| format!("{name}: --out is missing: a folder for the answers"))?;
    let files = files(split, data, args);
    let mut items = benchmark::items(benchmark.form, split.name, &files)?;
    let all = items.len();
    items.truncate(common.questions.unwrap_or(all));
    let cx = device.open()?;
    let assistant = model.load(&cx)?;
    let down = args.down_scale.map(|side| match side {
        0 => assistant.model.config().vision.image_size,
        side => side,
    });
    let instruction = |question: &str| match &args.prompt {
        Some(prompt) => prompt.replace("{question}", question),
        None => benchmark.instruction(question),
    };
    let settings = settings(benchmark, split, args, model, down, &instruction("{question}"))?;
    let mut predictions = Predictions::open(out, &settings, &items, args.images())?;
    let store = Store::open(&files.images)?;
    let new_tokens = args.new_tokens.unwrap_or(benchmark.new_tokens);
    let how = How { cx: &cx, assistant: &assistant, down, attention: args.attention };
    let mut bar = Progress::new(items.len() as u64, "questions");
    bar.at(predictions.done.len() as u64);
    let ask =
        Ask { items: &items, store: &store, images: args.images(), new_tokens, instruction: &instruction };
    predictions.run(ask, |asking| how.answer(asking), |done, _| bar.at(done as u64))?;
    bar.finish();
    write(&out.join("command.txt"), &format!("{}\n", command_line()))?;
    let samples = how.samples(&items, &predictions.done, &store, args.samples.unwrap_or(6))?;
    write(&out.join("samples.json"), &format!("{}\n", serde_json::to_string(&samples)?))?;
    let results = out.join("results.json");
    let rows = &predictions.done;
    write(&results, &format!("{}\n", benchmark::results(benchmark.form, rows)))?;
    let part = (rows.len() < all).then(|| format!("{} of {all} questions", rows.len()));
    let mut report = Map::new();
    report.insert("benchmark".into(), json!(benchmark.title));
    report.insert("split".into(), json!(split.name));
    report.insert("questions".into(), json!(rows.len()));
    report.insert("of".into(), json!(all));
    let mut lines = Vec::new();
    if split.scored {
        let scores = benchmark::score(benchmark, &files, &items, rows, &results)?;
        scored(out, &scores, rows, &mut report, &mut lines)?;
        let details = benchmark::details(benchmark.form, &files, &items, rows, args.regions.as_deref())?;
        by_size(&scores, details.as_ref(), rows, &mut report, &mut lines);
    } else {
        lines.push(format!("{}: to be submitted; the references are not published", results.display()));
    }
    write(&out.join("scores.json"), &format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    if let Some(part) = part {
        note!("the first {part} were asked");
    }
    if common.json {
        say!("{}", serde_json::to_string(&report)?);
    } else {
        lines.iter().for_each(|line| say!("{line}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn split(benchmark: &'static Benchmark, name: Option<&str>) -> anyhow::Result<&'static Split> {
    let Some(name) = name else { return Ok(&benchmark.splits[0]) };
    let known: Vec<&str> = benchmark.splits.iter().map(|split| split.name).collect();
    let found = benchmark.splits.iter().find(|split| split.name == name);
    found.with_context(|| {
        format!("--split: {} has no split `{name}`; it has {}", benchmark.name, known.join(", "))
    })
}

fn files(split: &Split, data: &Path, args: &BenchmarkArgs) -> Files {
    let mut files = split.files(data);
    if let Some(questions) = &args.questions_file {
        if files.annotations == files.questions {
            files.annotations.clone_from(questions);
        }
        files.questions.clone_from(questions);
    }
    files.annotations = args.annotations.clone().unwrap_or(files.annotations);
    files.images = args.images.clone().unwrap_or(files.images);
    files
}

/// Everything that the answers depend on, so that no evaluation goes on with another model or prompt.
fn settings(
    benchmark: &Benchmark,
    split: &Split,
    args: &BenchmarkArgs,
    model: &ModelArg,
    down: Option<usize>,
    instruction: &str,
) -> anyhow::Result<Map<String, Value>> {
    let mut settings = Map::new();
    settings.insert("benchmark".into(), json!(benchmark.name));
    settings.insert("split".into(), json!(split.name));
    settings.insert("prompt".into(), json!(instruction));
    settings.insert("new_tokens".into(), json!(args.new_tokens.unwrap_or(benchmark.new_tokens)));
    settings.insert("batch".into(), json!(args.images()));
    settings.insert("attention".into(), json!(args.attention));
    settings.insert("down_scale".into(), json!(down));
    settings.insert("model".into(), model.fingerprint()?);
    Ok(settings)
}

/// How questions are answered.
struct How<'a> {
    cx: &'a Cx,
    assistant: &'a Assistant,
    down: Option<usize>,
    attention: bool,
}

/// Longest side of a sample's image in a report, in pixels.
const SAMPLE: usize = 320;

/// The command line of this process.
fn command_line() -> String {
    let quoted = |arg: String| match arg.contains([' ', '{', '*', '?', '\'', '"', '$']) {
        true => format!("'{}'", arg.replace('\'', "'\\''")),
        false => arg,
    };
    let args = std::env::args_os().skip(1).map(|arg| quoted(arg.to_string_lossy().into_owned()));
    std::iter::once("pheye".to_owned()).chain(args).collect::<Vec<_>>().join(" ")
}

impl How<'_> {
    /// `count` answers, evenly spaced over `rows`, with the image and where the model looked, on average over the
    /// tokens of the answer.
    fn samples(
        &self,
        items: &[Item],
        rows: &[Prediction],
        store: &Store,
        count: usize,
    ) -> anyhow::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        let answered: Vec<_> = items.iter().zip(rows).collect();
        for (item, row) in pheye::spread(&answered, count) {
            let image = store.image(&item.image, &DecodeOptions::default())?;
            let tiles = self.pixels(&image);
            let (cx, assistant) = (self.cx, self.assistant);
            let seen = assistant.see(cx, &[&tiles])?;
            let greedy = GenerationConfig::greedy(row.tokens.max(1));
            let questions = [row.instruction.as_str()];
            let answers = assistant.ask_seen(cx, &seen, &questions, &[0], &greedy, None)?;
            let looks = assistant.look(cx, &seen, 0, &row.instruction, &answers[0])?;
            let small = shrink(image, SAMPLE);
            let look = look::heat_map(&small, &look::mean(&looks));
            let look = resize_bicubic(&look, SAMPLE, SAMPLE);
            let base64 = |image: &Rgb8| Ok::<_, anyhow::Error>(BASE64_STANDARD.encode(pheye::png(image)?));
            samples.push(Sample {
                instruction: row.instruction.clone(),
                answer: row.answer.clone(),
                expected: item.expected.clone(),
                image: base64(&small)?,
                look: base64(&look)?,
            });
        }
        Ok(samples)
    }

    /// The input of the model.
    fn pixels(&self, image: &Rgb8) -> Tiles {
        let preprocess = self.assistant.preprocess();
        match self.down {
            Some(side) => preprocess.pixels(&resize_bicubic(image, side, side)),
            None => preprocess.pixels(image),
        }
    }

    fn answer(&self, asking: &Asking) -> pheye::Result<Vec<Answered>> {
        let tiles: Vec<_> = asking.images.par_iter().map(|image| self.pixels(image)).collect();
        let questions: Vec<&str> = asking.instructions.iter().map(String::as_str).collect();
        let greedy = GenerationConfig::greedy(asking.new_tokens);
        let (cx, assistant) = (self.cx, self.assistant);
        let seen = assistant.see(cx, &tiles.iter().collect::<Vec<_>>())?;
        let answers = assistant.ask_seen(cx, &seen, &questions, &asking.about, &greedy, None)?;
        let log_probs = assistant.log_probs(cx, &seen, &questions, &asking.about, &answers)?;
        let mut answered = Vec::new();
        for (i, (answer, log_prob)) in answers.into_iter().zip(log_probs).enumerate() {
            let global_attention = match self.attention {
                true => assistant.global_attention(cx, &seen, asking.about[i], questions[i], &answer)?,
                false => Vec::new(),
            };
            let tokens = answer.ids.len();
            answered.push(Answered { text: answer.text, log_prob, tokens, global_attention });
        }
        Ok(answered)
    }
}

/// Writes the score of each question or image, and adds the totals to the report.
fn scored(
    out: &Path,
    scores: &Scores,
    rows: &[Prediction],
    report: &mut Map<String, Value>,
    lines: &mut Vec<String>,
) -> anyhow::Result<()> {
    let each = out.join("scored.jsonl");
    match scores {
        Scores::Questions(questions) => {
            score::warn(&questions.warnings);
            let totals = Totals::of(&questions.answers);
            report.insert("scores".into(), score::question_object(&totals, questions)?);
            lines.extend(score::question_lines(&totals, questions));
            score::lines(&each, &score::question_rows(questions)?)
        }
        Scores::Captions(sets) => {
            let mut domains = Map::new();
            for set in sets {
                let named = score::named(&set.scores);
                let title = set.domain.as_deref().unwrap_or("all");
                lines.push(format!("{title}, {} images", set.images.len()));
                lines.extend(named.iter().map(|(name, score)| format!("  {name:<8} {:.4}", score.corpus)));
                match &set.domain {
                    None => _ = report.insert("scores".into(), Value::Object(score::caption_object(&named))),
                    Some(domain) => {
                        _ = domains.insert(domain.clone(), Value::Object(score::caption_object(&named)));
                    }
                }
            }
            if !domains.is_empty() {
                report.insert("domains".into(), Value::Object(domains));
            }
            ensure!(!sets.is_empty() && !rows.is_empty(), "no captions");
            let named = score::named(&sets[0].scores);
            let rows = sets[0].images.iter().enumerate().map(|(i, id)| score::caption_row(id, i, &named));
            score::lines(&each, &rows.collect::<Vec<_>>())
        }
    }
}

/// Adds the scores and the attention by the size of what is asked about.
fn by_size(
    scores: &Scores,
    details: Option<&Details>,
    rows: &[Prediction],
    report: &mut Map<String, Value>,
    lines: &mut Vec<String>,
) {
    let names = Tertile::ALL.map(Tertile::name);
    let by_name = |means: [Option<f64>; 3]| -> Value {
        names
            .iter()
            .zip(means)
            .map(|(name, mean)| ((*name).to_owned(), json!(mean)))
            .collect::<Map<_, _>>()
            .into()
    };
    let attention: Vec<Vec<f64>> =
        rows.iter().map(|row| row.global_attention.iter().map(|share| f64::from(*share)).collect()).collect();
    let blocks = attention.first().map_or(0, Vec::len);
    let layer = |block: usize| -> Vec<f64> { attention.iter().map(|row| row[block]).collect() };
    if blocks > 0 {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let means: Vec<f64> = (0..blocks).map(|block| mean(&layer(block))).collect();
        let shown: Vec<String> = means.iter().map(|share| format!("{:.1} %", 100.0 * share)).collect();
        lines.push(format!("attention on the global image, by block: {}", shown.join(", ")));
        report.insert("global_attention".into(), json!(means));
    }
    let answers = match scores {
        Scores::Questions(questions) => &questions.answers,
        Scores::Captions(_) => return,
    };
    let Some(details) = details else { return };
    let accuracy: std::collections::HashMap<&str, f64> =
        answers.iter().map(|answer| (answer.question_id.as_str(), 100.0 * answer.accuracy)).collect();
    // The benchmarks with known sizes score every answer.
    let accuracy: Vec<f64> =
        rows.iter().map(|row| accuracy.get(row.id.as_str()).copied().unwrap_or_default()).collect();
    let means = details.means(&accuracy);
    for (name, mean) in names.iter().zip(means).filter_map(|(name, mean)| Some((name, mean?))) {
        lines.push(format!("  {mean:6.2} %  {name} details"));
    }
    let mut sizes = Map::new();
    sizes.insert("accuracy".into(), by_name(means));
    sizes.insert("largest_share".into(), json!(details.bounds()));
    sizes.insert("left_out".into(), json!(details.left_out()));
    if blocks > 0 {
        let of_blocks: Vec<Value> = (0..blocks).map(|block| by_name(details.means(&layer(block)))).collect();
        sizes.insert("global_attention".into(), json!(of_blocks));
    }
    if details.left_out() > 0 {
        lines.push(format!("  {} questions about nothing whose size is known", details.left_out()));
    }
    report.insert("by_size".into(), Value::Object(sizes));
}
