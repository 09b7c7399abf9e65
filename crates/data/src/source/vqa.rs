//! VQAv2 and OK-VQA: questions in one file, answers in another.

use std::borrow::Cow;

use serde::Deserialize;

use super::prompt::Prompt;
use super::reader::{Id, ONE, Part, Read, Reader, Record, TWO, Table, most_frequent, one, parse};
use super::rules::Rules;
use crate::json_stream::Layout;

const TABLES: &[Table] = &[
    Table { key: "path", layout: Layout::ArrayIn("questions"), id: Some(question_id) },
    Table { key: "annotations", layout: Layout::ArrayIn("annotations"), id: Some(question_id) },
];
const IMAGES: Option<&str> = Some("COCO_{split}_{id:012}.jpg");

pub(crate) static VQA_V2: Reader = Reader {
    tables: TABLES,
    parts: &[Part::new("vqav2", TWO, Prompt::ShortAnswer).grouped()],
    image_name: IMAGES,
    read,
    ..Reader::USUAL
};

pub(crate) static OK_VQA: Reader = Reader {
    tables: TABLES,
    parts: &[Part::new("ok-vqa", ONE, Prompt::ShortAnswer).grouped()],
    image_name: IMAGES,
    read,
    ..Reader::USUAL
};

#[derive(Deserialize)]
struct Question<'a> {
    image_id: Id,
    #[serde(borrow)]
    question: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Annotation<'a> {
    #[serde(borrow)]
    multiple_choice_answer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    answers: Vec<Answer<'a>>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    answer: Cow<'a, str>,
    /// OK-VQA has the answer as it was given here, and stemmed in `answer`.
    #[serde(borrow)]
    raw_answer: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Numbered {
    question_id: Id,
}

fn question_id(json: &[u8]) -> Result<String, String> {
    let Numbered { question_id: Id(id) } = parse(json)?;
    Ok(id)
}

fn read(record: &Record<'_>, rules: &Rules) -> Result<Read, String> {
    let question: Question<'_> = record.parse(0)?;
    let said: Annotation<'_> = record.parse(1).map_err(|why| format!("its annotation: {why}"))?;
    let answers: Vec<&str> =
        said.answers.iter().map(|a| a.raw_answer.as_ref().unwrap_or(&a.answer).as_ref()).collect();
    let Some(answer) = said.multiple_choice_answer.as_deref().or_else(|| most_frequent(&answers)) else {
        return Ok(Read::LeftOut("without an answer"));
    };
    Ok(Read::Item(0, one(rules.image(&question.image_id.0), &question.question, answer)))
}
