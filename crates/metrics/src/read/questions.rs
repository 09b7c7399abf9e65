//! Questions with answers: VQAv2, TextVQA, OK-VQA, A-OKVQA and GQA, and results for them.

use std::path::Path;

use serde::Deserialize;

use super::id::Id;
use super::json::{self, Entries, name};
use super::matching::{covered, in_order, none_of, unique};
use super::{Cover, Warning, warning};
use crate::vqa::{Scored, aokvqa_choice, aokvqa_direct, gqa, textvqa, vqa_v2};
use crate::{Error, Result};

/// An accuracy of short answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// VQAv2.
    Vqa,
    /// TextVQA.
    TextVqa,
    /// OK-VQA, by the rule of TextVQA as lmms-eval has it.
    OkVqa,
    /// A-OKVQA.
    AOkVqa,
    /// GQA.
    Gqa,
}

/// Scored questions, in the order of the references.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Questions {
    /// The questions whose answers are free text. Of A-OKVQA, those with direct answers in the results.
    pub answers: Vec<Scored>,
    /// The questions of A-OKVQA whose answers are choices, if the results have them.
    pub choices: Vec<Scored>,
    /// The number of questions that are not scored: difficult ones of A-OKVQA.
    pub left_out: usize,
    /// What is doubtful about them.
    pub warnings: Vec<Warning>,
}

/// The number of answers that the rules of VQAv2, TextVQA and OK-VQA are made for.
const TEN: usize = 10;

#[derive(Deserialize)]
struct Annotations {
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    question_id: Id,
    question_type: Option<String>,
    answer_type: Option<String>,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    answer: String,
}

#[derive(Deserialize)]
struct TextVqaFile {
    data: Vec<TextVqaRow>,
}

#[derive(Deserialize)]
struct TextVqaRow {
    question_id: Id,
    #[serde(default)]
    answers: Vec<String>,
}

#[derive(Deserialize)]
struct AOkVqaRow {
    question_id: Id,
    choices: Vec<String>,
    correct_choice_idx: Option<usize>,
    #[serde(default)]
    direct_answers: Vec<String>,
    #[serde(default)]
    difficult_direct_answer: bool,
}

#[derive(Deserialize)]
struct GqaRow {
    answer: String,
}

/// A result in any of the official forms.
#[derive(Deserialize)]
struct ResultRow {
    #[serde(alias = "questionId")]
    question_id: Id,
    #[serde(alias = "prediction")]
    answer: String,
}

/// A result of A-OKVQA's own form, by question id.
#[derive(Deserialize)]
struct AOkVqaResult {
    direct_answer: Option<String>,
    multiple_choice: Option<String>,
}

/// The answers of people to a question of VQAv2, OK-VQA or TextVQA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The question's id.
    pub id: Id,
    /// The answers: ten, in complete files.
    pub answers: Vec<String>,
    /// The type of the answer, in data that has one.
    pub answer_type: Option<String>,
    /// The type of the question, in data that has one.
    pub question_type: Option<String>,
}

/// The references of VQAv2 and OK-VQA, or with [`Metric::TextVqa`] those of TextVQA.
///
/// # Errors
/// Returns [`Error::Io`] or [`Error::Form`] for a file that is not of its form.
pub fn references(metric: Metric, path: &Path) -> Result<Vec<Reference>> {
    if metric == Metric::TextVqa {
        let file: TextVqaFile = json::read(path, "questions of TextVQA's form")?;
        let reference = |row: TextVqaRow| Reference {
            id: row.question_id,
            answers: row.answers,
            answer_type: None,
            question_type: None,
        };
        return Ok(file.data.into_iter().map(reference).collect());
    }
    let file: Annotations = json::read(path, "annotations of VQA's form")?;
    let reference = |row: Annotation| Reference {
        id: row.question_id,
        answers: row.answers.into_iter().map(|answer| answer.answer).collect(),
        answer_type: row.answer_type,
        question_type: row.question_type,
    };
    Ok(file.annotations.into_iter().map(reference).collect())
}

/// Reads references and results of a metric and scores the references that `cover` selects.
///
/// | metric | references | results |
/// |---|---|---|
/// | VQAv2, OK-VQA | `{"annotations": [{"question_id", "answers": [{"answer"}, … 10], …}]}` | `[{"question_id", "answer"}]` |
/// | TextVQA | `{"data": [{"question_id", "answers": [… 10]}]}` | `[{"question_id", "answer"}]` |
/// | A-OKVQA | `[{"question_id", "choices", "correct_choice_idx", "direct_answers", …}]` | `[{"question_id", "answer"}]`, or `{ID: {"direct_answer", "multiple_choice"}}` |
/// | GQA | `{ID: {"answer", …}}` | `[{"questionId", "prediction"}]` |
///
/// # Errors
/// Returns [`Error::Io`] or [`Error::Form`] for a file that is not of its form, and [`Error::Entries`] if ids
/// occur twice, a question lacks answers, or results and questions do not match.
pub fn questions(metric: Metric, references: &Path, results: &Path, cover: Cover) -> Result<Questions> {
    match metric {
        Metric::Vqa => score_ten(vqa_v2, metric, [references, results], cover),
        Metric::OkVqa | Metric::TextVqa => score_ten(textvqa, metric, [references, results], cover),
        Metric::AOkVqa => a_okvqa(references, results, cover),
        Metric::Gqa => of_gqa(references, results, cover),
    }
}

/// Scores questions with ten answers each by `rule`.
fn score_ten(
    rule: fn(&[String], &str) -> f64,
    metric: Metric,
    [path, results]: [&Path; 2],
    cover: Cover,
) -> Result<Questions> {
    let (from, mut asked) = (name(path), references(metric, path)?);
    check_ids(&from, asked.iter().map(|question| question.id.as_str()))?;
    let other: Vec<&str> = asked.iter().filter(|q| q.answers.len() != TEN).map(|q| q.id.as_str()).collect();
    none_of(&from, "questions without exactly ten answers", &other)?;
    let rows = rows(results)?;
    covered(cover, &mut asked, |q| q.id.as_str(), &rows);
    let given = in_order(&name(results), asked.iter().map(|q| q.id.as_str()), rows)?;
    let empty: Vec<&str> =
        asked.iter().zip(&given).filter(|(_, a)| a.trim().is_empty()).map(|(q, _)| q.id.as_str()).collect();
    let blank: Vec<&str> = asked
        .iter()
        .filter(|q| q.answers.iter().all(|a| a.trim().is_empty()))
        .map(|q| q.id.as_str())
        .collect();
    let warnings = [
        warning(&from, "questions whose answers are all empty", &blank),
        warning(&name(results), "answers are empty, to the questions", &empty),
    ];
    let scored = asked.iter().zip(&given).map(|(question, answer)| Scored {
        question_id: question.id.clone(),
        accuracy: rule(&question.answers, answer),
        answer_type: question.answer_type.clone(),
        question_type: question.question_type.clone(),
    });
    Ok(Questions {
        answers: scored.collect(),
        warnings: warnings.into_iter().flatten().collect(),
        ..Questions::default()
    })
}

fn check_ids<'a>(from: &str, ids: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
    if ids.clone().next().is_none() {
        return Err(Error::Empty { name: from.to_owned(), what: "questions" });
    }
    unique(from, "questions occur twice, with the ids", ids)
}

fn rows(results: &Path) -> Result<Vec<(Id, String)>> {
    rows_of(&json::text(results)?, results)
}

/// The results in `text`, which is that of the file `results`.
fn rows_of(text: &str, results: &Path) -> Result<Vec<(Id, String)>> {
    let rows: Vec<ResultRow> =
        json::parse(text, results, "a list of results with `question_id` and `answer`")?;
    Ok(rows.into_iter().map(|row| (row.question_id, row.answer)).collect())
}

fn of_gqa(references: &Path, results: &Path, cover: Cover) -> Result<Questions> {
    let Entries(mut file): Entries<GqaRow> = json::read(references, "questions of GQA's form")?;
    check_ids(&name(references), file.iter().map(|(id, _)| id.as_str()))?;
    let rows = rows(results)?;
    covered(cover, &mut file, |(id, _)| id, &rows);
    let given = in_order(&name(results), file.iter().map(|(id, _)| id.as_str()), rows)?;
    let scored = file
        .iter()
        .zip(&given)
        .map(|((id, row), answer)| plain(&id.as_str().into(), gqa(&row.answer, answer)));
    Ok(Questions { answers: scored.collect(), ..Questions::default() })
}

/// A scored question without types.
fn plain(id: &Id, accuracy: f64) -> Scored {
    Scored { question_id: id.clone(), accuracy, answer_type: None, question_type: None }
}

fn a_okvqa(references: &Path, results: &Path, cover: Cover) -> Result<Questions> {
    let mut file: Vec<AOkVqaRow> = json::read(references, "questions of A-OKVQA's form")?;
    let from = name(references);
    check_ids(&from, file.iter().map(|row| row.question_id.as_str()))?;
    let rows = a_okvqa_results(results)?;
    covered(cover, &mut file, |row| row.question_id.as_str(), &rows);
    let given = in_order(&name(results), file.iter().map(|row| row.question_id.as_str()), rows)?;
    let mut scored = Questions::default();
    let (mut without, mut impossible) = (Vec::new(), Vec::new());
    for (row, result) in file.iter().zip(&given) {
        let id = &row.question_id;
        if let Some(choice) = &result.multiple_choice {
            match row.correct_choice_idx.filter(|&correct| correct < row.choices.len()) {
                Some(_) if !row.choices.contains(choice) => impossible.push(id.as_str()),
                Some(correct) => scored.choices.push(plain(id, aokvqa_choice(&row.choices, correct, choice))),
                None => without.push(id.as_str()),
            }
        }
        match &result.direct_answer {
            Some(_) if row.difficult_direct_answer => scored.left_out += 1,
            Some(_) if row.direct_answers.is_empty() => without.push(id.as_str()),
            Some(answer) => scored.answers.push(plain(id, aokvqa_direct(&row.direct_answers, answer))),
            None => {}
        }
    }
    none_of(&from, "questions without answers", &without)?;
    none_of(&name(results), "choices that their question does not offer, of the questions", &impossible)?;
    partly(&name(results), &file, &given)?;
    Ok(scored)
}

/// Fails if some results have a direct answer, or a choice, and others lack it.
fn partly(name: &str, file: &[AOkVqaRow], given: &[AOkVqaResult]) -> Result<()> {
    let check = |what, has: fn(&AOkVqaResult) -> bool| {
        let lacking = file.iter().zip(given).filter(|(_, result)| !has(result));
        let lacking: Vec<&str> = lacking.map(|(row, _)| row.question_id.as_str()).collect();
        if lacking.len() == file.len() {
            Ok(lacking.len())
        } else {
            none_of(name, what, &lacking).map(|()| 0)
        }
    };
    let direct = check("results without `direct_answer`, which others have", |r| r.direct_answer.is_some())?;
    let choice =
        check("results without `multiple_choice`, which others have", |r| r.multiple_choice.is_some())?;
    if direct + choice == 2 * file.len() {
        return Err(Error::Empty { name: name.to_owned(), what: "`direct_answer` or `multiple_choice`" });
    }
    Ok(())
}

/// The results of A-OKVQA: its own form, an object by question id, or a list of direct answers.
fn a_okvqa_results(results: &Path) -> Result<Vec<(Id, AOkVqaResult)>> {
    let text = json::text(results)?;
    if !text.trim_start().starts_with('{') {
        let direct = |answer| AOkVqaResult { direct_answer: Some(answer), multiple_choice: None };
        return Ok(rows_of(&text, results)?.into_iter().map(|(id, answer)| (id, direct(answer))).collect());
    }
    let form = "results with `direct_answer` and `multiple_choice` by question id";
    let Entries(entries) = json::parse(&text, results, form)?;
    Ok(entries.into_iter().map(|(id, result)| (id.as_str().into(), result)).collect())
}
