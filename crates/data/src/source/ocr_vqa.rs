//! OCR-VQA: questions about the covers of books.

use std::borrow::Cow;

use serde::Deserialize;

use super::prompt::Prompt;
use super::reader::{ONE, Part, Read, Reader, Record, Table};
use super::rules::Rules;
use crate::Item;
use crate::json_stream::Layout;

pub(crate) static READER: Reader = Reader {
    tables: &[Table::only(Layout::Object)],
    parts: &[Part::new("ocr-vqa", ONE, Prompt::ShortAnswer)],
    read,
    ..Reader::USUAL
};

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow, rename = "imageURL")]
    image_url: Cow<'a, str>,
    #[serde(borrow)]
    questions: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    answers: Vec<Cow<'a, str>>,
    split: u8,
}

/// The number of the split for training.
const TRAIN: u8 = 1;

fn read(record: &Record<'_>, _: &Rules) -> Result<Read, String> {
    let (key, row): (_, Row<'_>) = record.member()?;
    let (asked, answered) = (row.questions.len(), row.answers.len());
    if asked != answered {
        return Err(format!("`questions` are {asked}, and `answers` {answered}"));
    }
    if row.split != TRAIN {
        return Ok(Read::LeftOut("another split than train"));
    }
    if asked == 0 {
        return Ok(Read::LeftOut("without a question"));
    }
    // The name of an image is the key, with the extension of its address.
    let file = row.image_url.rsplit('/').next().unwrap_or("");
    let extension = file.rfind('.').map_or("", |dot| &file[dot..]);
    let pairs = row.questions.iter().zip(&row.answers);
    let qa = pairs.map(|(question, answer)| (question.trim().into(), answer.trim().into())).collect();
    Ok(Read::Item(0, Item { image: Some(format!("{key}{extension}")), qa, ..Item::default() }))
}
