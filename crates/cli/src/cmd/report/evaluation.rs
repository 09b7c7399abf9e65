//! The files of an evaluation, read for a report.

use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What `pheye eval BENCHMARK` wrote.
pub(crate) struct Evaluation {
    /// Its name in the report.
    pub(crate) name: String,
    /// The command that made it.
    pub(crate) command: String,
    /// `scores.json`.
    pub(crate) report: Value,
    pub(crate) samples: Vec<Sample>,
}

/// An answered question with its image.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) instruction: String,
    pub(crate) answer: String,
    #[serde(default)]
    pub(crate) expected: Option<String>,
    /// The image, and where the model looked, as base64 of PNG files.
    pub(crate) image: String,
    pub(crate) look: String,
}

/// The evaluations of one split of a benchmark.
pub(crate) struct Group<'a> {
    pub(crate) title: String,
    pub(crate) evaluations: Vec<&'a Evaluation>,
}

/// The largest file that is read, in bytes.
const LIMIT: u64 = 256 << 20;

impl Evaluation {
    pub(crate) fn open(name: String, dir: &Path) -> anyhow::Result<Evaluation> {
        ensure!(dir.is_dir(), "{name}: there is no folder {}", dir.display());
        ensure!(
            dir.join("scores.json").exists(),
            "{name}: {} is not the folder of a finished evaluation: it has no scores.json",
            dir.display()
        );
        let read = |file: &str| {
            let path = dir.join(file);
            pheye_files::read_text(&path, pheye_files::Kind::Any, LIMIT)
                .with_context(|| format!("{}: cannot be read", path.display()))
        };
        let parsed = |file: &str, text: &str| -> anyhow::Result<Value> {
            serde_json::from_str(text).with_context(|| format!("{}: not JSON", dir.join(file).display()))
        };
        let report = parsed("scores.json", &read("scores.json")?)?;
        let command = read("command.txt")?.trim().to_owned();
        let samples = match dir.join("samples.json").exists() {
            true => serde_json::from_value(parsed("samples.json", &read("samples.json")?)?)
                .with_context(|| format!("{}: not samples", dir.join("samples.json").display()))?,
            false => Vec::new(),
        };
        Ok(Evaluation { name, command, report, samples })
    }

    /// `of 600 questions`, for a table.
    pub(crate) fn size(&self) -> String {
        let number = |key: &str| self.report[key].as_u64().unwrap_or_default();
        match (number("questions"), number("of")) {
            (asked, all) if asked == all => all.to_string(),
            (asked, all) => format!("{asked} of {all}"),
        }
    }

    /// The scores that the tables show, with their names: percentages, and captions' scores times 100.
    pub(crate) fn scores(&self) -> Vec<(String, f64)> {
        let Some(scores) = self.report["scores"].as_object() else { return Vec::new() };
        let captions = ["CIDEr", "BLEU-4", "ROUGE-L", "METEOR"];
        let shown = |name: &str, scale: f64| Some((name.to_owned(), scale * scores.get(name)?.as_f64()?));
        let mut all: Vec<(String, f64)> = captions.iter().filter_map(|name| shown(name, 100.0)).collect();
        all.extend(shown("accuracy", 1.0));
        all.extend(shown("multiple_choice", 1.0));
        if let Some(domains) = self.report["domains"].as_object() {
            let cider = |(name, of): (&String, &Value)| {
                Some((format!("CIDEr, {name}"), 100.0 * of["CIDEr"].as_f64()?))
            };
            all.extend(domains.iter().filter_map(cider));
        }
        all
    }

    /// The accuracy on small, medium and large details, in percent.
    pub(crate) fn by_size(&self) -> Option<[f64; 3]> {
        three(&self.report["by_size"]["accuracy"])
    }

    /// The share of attention on the global image in each cross-attention block: over all questions, and for small,
    /// medium and large details.
    pub(crate) fn attention(&self) -> Option<(Vec<f64>, Vec<[f64; 3]>)> {
        let all = self.report["global_attention"].as_array()?;
        let all: Vec<f64> = all.iter().filter_map(Value::as_f64).collect();
        let sizes = self.report["by_size"]["global_attention"].as_array();
        Some((all, sizes.into_iter().flatten().filter_map(three).collect()))
    }
}

/// The values of an object with `small`, `medium` and `large`.
fn three(of: &Value) -> Option<[f64; 3]> {
    Some([of["small"].as_f64()?, of["medium"].as_f64()?, of["large"].as_f64()?])
}

/// The evaluations by benchmark, in the order of their first.
pub(crate) fn by_benchmark(evaluations: &[Evaluation]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for evaluation in evaluations {
        let part = |key: &str| evaluation.report[key].as_str().unwrap_or("?").to_owned();
        let title = format!("{}, {}", part("benchmark"), part("split"));
        match groups.iter_mut().find(|group| group.title == title) {
            Some(group) => group.evaluations.push(evaluation),
            None => groups.push(Group { title, evaluations: vec![evaluation] }),
        }
    }
    groups
}
