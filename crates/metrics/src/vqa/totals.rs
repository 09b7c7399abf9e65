//! Means over questions: of all, by type of answer and by type of question.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::python::round2;
use crate::read::Id;

/// A scored question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scored {
    /// The question's id as the files have it.
    pub question_id: Id,
    /// Its accuracy, in 0..=1.
    pub accuracy: f64,
    /// The type of its answer, in data that has one: `yes/no`, `number` or `other` in VQAv2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_type: Option<String>,
    /// The type of the question, in data that has one: its first words in VQAv2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question_type: Option<String>,
}

/// Accuracies in percent, each rounded to two places as VQA's evaluation code does.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Totals {
    /// The mean over all questions; 0 without any.
    pub accuracy: f64,
    /// The mean over the questions of each answer type.
    pub answer_types: BTreeMap<String, f64>,
    /// The mean over the questions of each question type.
    pub question_types: BTreeMap<String, f64>,
    /// The number of questions.
    pub questions: usize,
}

impl Totals {
    /// The means over `scored`, summed in its order.
    pub fn of(scored: &[Scored]) -> Totals {
        Totals {
            accuracy: percent(&scored.iter().map(|s| s.accuracy).collect::<Vec<_>>()),
            answer_types: by(scored, |s| s.answer_type.as_deref()),
            question_types: by(scored, |s| s.question_type.as_deref()),
            questions: scored.len(),
        }
    }
}

fn by<'a>(scored: &'a [Scored], key: impl Fn(&'a Scored) -> Option<&'a str>) -> BTreeMap<String, f64> {
    let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for s in scored {
        if let Some(key) = key(s) {
            groups.entry(key).or_default().push(s.accuracy);
        }
    }
    groups.into_iter().map(|(key, group)| (key.to_owned(), percent(&group))).collect()
}

fn percent(scores: &[f64]) -> f64 {
    if scores.is_empty() {
        return 0.0;
    }
    round2(100.0 * scores.iter().sum::<f64>() / scores.len() as f64)
}
