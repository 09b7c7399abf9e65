//! Scene-text VQA: images in folders by the data set that they come from.

use std::borrow::Cow;

use serde::Deserialize;

use super::config::Turns;
use super::prompt::Prompt;
use super::reader::{Part, Read, Reader, Record, Table, one};
use super::rules::Rules;
use crate::json_stream::Layout;

pub(crate) static READER: Reader = Reader {
    tables: &[Table::only(Layout::ArrayIn("data"))],
    parts: &[Part::new("st-vqa", Turns::All, Prompt::ShortAnswer).unique()],
    read,
    ..Reader::USUAL
};

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    question: Cow<'a, str>,
    #[serde(borrow)]
    answers: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    dataset: Cow<'a, str>,
    #[serde(borrow)]
    file_name: Cow<'a, str>,
}

fn read(record: &Record<'_>, _: &Rules) -> Result<Read, String> {
    let row: Row<'_> = record.parse(0)?;
    let Some(answer) = row.answers.first() else { return Ok(Read::LeftOut("without an answer")) };
    Ok(Read::Item(0, one(format!("{}/{}", row.dataset, row.file_name), &row.question, answer)))
}
