//! The scores of answers against the references of a benchmark.

use std::path::Path;

use pheye_metrics::caption::Scores as Captions;
use pheye_metrics::read::{self, CaptionSet, Cover, Id, Questions, caption_scores};
use pheye_metrics::vqa::Scored;
use serde::Deserialize;

use super::{Benchmark, Files, Form, Item, Prediction, Rule};
use crate::Result;

/// The scores of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub enum Scores {
    /// The accuracies of short answers, or for each question whether the answer is the expected one, without regard to
    /// case.
    Questions(Questions),
    /// The scores of captions: of all images, then of each domain in a benchmark that has several.
    Captions(Vec<CaptionScores>),
}

/// The scores of the captions of a set of images.
#[derive(Debug, Clone, PartialEq)]
pub struct CaptionScores {
    /// The domain of the images; `None` for all images.
    pub domain: Option<String>,
    /// The images.
    pub images: Vec<Id>,
    /// The scores. CIDEr has the document frequencies of this set.
    pub scores: Captions,
}

#[derive(Deserialize)]
struct Domains {
    images: Vec<Domain>,
}

#[derive(Deserialize)]
struct Domain {
    id: Id,
    domain: Option<String>,
}

/// Scores the answers `predictions` to `items`, which are also in the file `results` in the benchmark's own form, as
/// its official code does. If there are fewer answers than questions, the questions without an answer are left out.
///
/// # Errors
/// When the references cannot be read or do not match the results.
pub fn score(
    benchmark: &Benchmark,
    files: &Files,
    items: &[Item],
    predictions: &[Prediction],
    results: &Path,
) -> Result<Scores> {
    // The file of DOCCI has the images of all splits.
    let all = predictions.len() == items.len() && benchmark.form != Form::Docci;
    let cover = if all { Cover::All } else { Cover::Some };
    Ok(match benchmark.rule {
        Rule::Questions(metric) => {
            Scores::Questions(read::questions(metric, &files.annotations, results, cover)?)
        }
        Rule::Captions => {
            let set = read::captions(&files.annotations, results, cover)?;
            Scores::Captions(by_domain(benchmark, files, &set)?)
        }
        Rule::Exact => {
            let answers = exact(files, items, predictions)?;
            Scores::Questions(Questions { answers, ..Questions::default() })
        }
    })
}

fn by_domain(benchmark: &Benchmark, files: &Files, set: &CaptionSet) -> Result<Vec<CaptionScores>> {
    let of = |domain: Option<String>, set: &CaptionSet| CaptionScores {
        domain,
        images: set.images.clone(),
        scores: caption_scores(set),
    };
    let mut all = vec![of(None, set)];
    if benchmark.form == Form::Coco {
        let file: Domains = read::json(&files.questions, "images of COCO's form")?;
        let domains: std::collections::HashMap<String, String> =
            file.images.into_iter().filter_map(|row| Some((row.id.to_string(), row.domain?))).collect();
        let mut names: Vec<&String> = domains.values().collect();
        names.sort();
        names.dedup();
        for name in names {
            let part = set.filtered(|id| domains.get(id.as_str()) == Some(name));
            if !part.images.is_empty() {
                all.push(of(Some(name.clone()), &part));
            }
        }
    }
    Ok(all)
}

fn exact(files: &Files, items: &[Item], predictions: &[Prediction]) -> Result<Vec<Scored>> {
    let mut without = Vec::new();
    let mut scored = Vec::new();
    for (item, prediction) in items.iter().zip(predictions) {
        let Some(expected) = &item.expected else {
            without.push(item.id.as_str());
            continue;
        };
        let plain = |text: &str| text.trim().to_lowercase();
        let right = plain(&prediction.answer) == plain(expected);
        scored.push(Scored {
            question_id: item.id.clone(),
            accuracy: f64::from(u8::from(right)),
            answer_type: None,
            question_type: None,
        });
    }
    let name = files.questions.display().to_string();
    read::none_of(&name, "questions without an answer, with the ids", &without)?;
    Ok(scored)
}
