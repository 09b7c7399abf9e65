//! TextVQA: questions with ten answers each, of which the most frequent is learnt.

use std::borrow::Cow;

use serde::Deserialize;

use super::config::Turns;
use super::prompt::Prompt;
use super::reader::{Id, Part, Read, Reader, Record, Table, most_frequent, one};
use super::rules::Rules;
use crate::json_stream::Layout;

pub(crate) static READER: Reader = Reader {
    tables: &[Table::only(Layout::ArrayIn("data"))],
    parts: &[Part::new("textvqa", Turns::All, Prompt::ShortAnswer).unique()],
    image_name: Some("{id}.jpg"),
    read,
    ..Reader::USUAL
};

#[derive(Deserialize)]
struct Row<'a> {
    image_id: Id,
    #[serde(borrow)]
    question: Cow<'a, str>,
    /// The test split has none.
    #[serde(borrow, default)]
    answers: Vec<Cow<'a, str>>,
}

fn read(record: &Record<'_>, rules: &Rules) -> Result<Read, String> {
    let row: Row<'_> = record.parse(0)?;
    let Some(answer) = most_frequent(&row.answers) else { return Ok(Read::LeftOut("without an answer")) };
    Ok(Read::Item(0, one(rules.image(&row.image_id.0), &row.question, answer)))
}
