//! `pheye score`: answers or captions in a file against a benchmark's references.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::ensure;
use clap::ValueEnum;
use pheye::metrics::caption::{Score, Scores, meteor, scores};
use pheye::metrics::read::{self, Cover, Id, Questions, Warning};
use pheye::metrics::vqa::Totals;
use pheye_files::quoted;
use serde_json::{Map, Value, json};

use super::eval::write;
use crate::out::{note, say};

/// Score answers or captions as the official evaluation code of a benchmark does
///
/// References are the benchmark's annotation file, predictions its result file; both are checked against each
/// other first. Example: `pheye score --metric caption --references captions_val2014.json --predictions
/// results.json --json` prints {"BLEU-1": …, "CIDEr": …}.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to compute
    #[arg(long, value_enum)]
    metric: Metric,
    /// The benchmark's file: captions of COCO, NoCaps, TextCaps or DOCCI, annotations of VQAv2 or OK-VQA, or
    /// questions of TextVQA, A-OKVQA or GQA
    #[arg(long, value_name = "FILE")]
    references: PathBuf,
    /// The results, in the benchmark's form
    #[arg(long, value_name = "FILE")]
    predictions: PathBuf,
    /// Write the score of each image or question to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    per_item: Option<PathBuf>,
    /// Compute METEOR too, with this jar (`meteor-1.5.jar` beside its folder `data`) and `java`
    #[arg(long, value_name = "JAR")]
    meteor: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A metric of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Metric {
    /// BLEU, ROUGE-L and CIDEr as pycocoevalcap computes them
    Caption,
    /// VQAv2
    Vqa,
    /// TextVQA
    #[value(name = "textvqa")]
    TextVqa,
    /// OK-VQA, by the rule of TextVQA without stemming, as lmms-eval has it
    #[value(name = "okvqa")]
    OkVqa,
    /// A-OKVQA: direct answers, and choices if the results have them
    #[value(name = "aokvqa")]
    AOkVqa,
    /// GQA
    Gqa,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let questions = match args.metric {
        Metric::Caption => return captions(&args),
        Metric::Vqa => read::Metric::Vqa,
        Metric::TextVqa => read::Metric::TextVqa,
        Metric::OkVqa => read::Metric::OkVqa,
        Metric::AOkVqa => read::Metric::AOkVqa,
        Metric::Gqa => read::Metric::Gqa,
    };
    ensure!(args.meteor.is_none(), "--meteor goes with --metric caption");
    let scored = read::questions(questions, &args.references, &args.predictions, Cover::All)?;
    warn(&scored.warnings);
    if let Some(path) = &args.per_item {
        lines(path, &question_rows(&scored)?)?;
    }
    let totals = Totals::of(&scored.answers);
    if args.json {
        say!("{}", serde_json::to_string(&question_object(&totals, &scored)?)?);
    } else {
        question_lines(&totals, &scored).iter().for_each(|line| say!("{line}"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn warn(warnings: &[Warning]) {
    warnings.iter().for_each(|warning| note!("warning: {warning}"));
}

/// Writes a JSON object a line.
pub(super) fn lines(path: &Path, rows: &[Value]) -> anyhow::Result<()> {
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    write(path, &text)
}

/// A score with its name.
pub(super) type Named<'a> = (&'static str, &'a Score);

fn captions(args: &Args) -> anyhow::Result<ExitCode> {
    let set = read::captions(&args.references, &args.predictions, Cover::All)?;
    warn(&set.warnings);
    let items = read::tokenize(&set);
    let all = scores(&items);
    let meteor = args.meteor.as_ref().map(|jar| meteor(&items, jar)).transpose()?;
    let mut named = named(&all);
    named.extend(meteor.as_ref().map(|score| ("METEOR", score)));
    if let Some(path) = &args.per_item {
        let rows: Vec<Value> =
            set.images.iter().enumerate().map(|(i, id)| caption_row(id, i, &named)).collect();
        lines(path, &rows)?;
    }
    if args.json {
        say!("{}", serde_json::to_string(&caption_object(&named))?);
        return Ok(ExitCode::SUCCESS);
    }
    for (name, score) in &named {
        say!("{name:<8} {:.4}", score.corpus);
    }
    if meteor.is_none() {
        say!("METEOR   not computed (--meteor names its jar)");
    }
    Ok(ExitCode::SUCCESS)
}

/// The scores with their names.
pub(super) fn named(all: &Scores) -> Vec<Named<'_>> {
    let [one, two, three, four] = &all.bleu;
    let bleu = [("BLEU-1", one), ("BLEU-2", two), ("BLEU-3", three), ("BLEU-4", four)];
    bleu.into_iter().chain([("ROUGE-L", &all.rouge_l), ("CIDEr", &all.cider_d)]).collect()
}

/// The corpus scores as an object.
pub(super) fn caption_object(named: &[Named]) -> Map<String, Value> {
    named.iter().map(|(name, score)| ((*name).to_owned(), json!(score.corpus))).collect()
}

pub(super) fn caption_row(id: &Id, i: usize, named: &[Named]) -> Value {
    let mut row = Map::new();
    row.insert("image_id".to_owned(), json!(id));
    row.extend(named.iter().map(|(name, score)| ((*name).to_owned(), json!(score.each[i]))));
    Value::Object(row)
}

/// The scored questions. Choices are marked, because A-OKVQA has both kinds of answers to one question.
pub(super) fn question_rows(scored: &Questions) -> anyhow::Result<Vec<Value>> {
    let mut rows = Vec::new();
    for question in &scored.answers {
        rows.push(serde_json::to_value(question)?);
    }
    for question in &scored.choices {
        let mut row = serde_json::to_value(question)?;
        row["multiple_choice"] = json!(true);
        rows.push(row);
    }
    Ok(rows)
}

/// The accuracies as `--json` prints them.
pub(super) fn question_object(totals: &Totals, scored: &Questions) -> anyhow::Result<Value> {
    let mut object = serde_json::to_value(totals)?;
    if scored.answers.is_empty() {
        // Results with choices alone have no accuracy of direct answers.
        object["accuracy"] = Value::Null;
    }
    if !scored.choices.is_empty() {
        object["multiple_choice"] = json!(Totals::of(&scored.choices).accuracy);
    }
    if scored.left_out > 0 {
        object["left_out"] = json!(scored.left_out);
    }
    Ok(object)
}

/// The accuracies as lines.
pub(super) fn question_lines(totals: &Totals, scored: &Questions) -> Vec<String> {
    let mut lines = Vec::new();
    if !scored.answers.is_empty() {
        lines.push(format!("{:.2} % over {} questions", totals.accuracy, totals.questions));
    }
    if !scored.choices.is_empty() {
        let choices = Totals::of(&scored.choices);
        lines
            .push(format!("{:.2} % over {} questions, multiple choice", choices.accuracy, choices.questions));
    }
    let types = totals.answer_types.iter().chain(&totals.question_types);
    lines.extend(types.map(|(name, accuracy)| format!("  {accuracy:6.2} %  {}", quoted(name))));
    if scored.left_out > 0 {
        lines.push(format!("{} difficult questions are left out", scored.left_out));
    }
    lines
}
