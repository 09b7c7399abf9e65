//! GQA's balanced questions.

use std::borrow::Cow;

use serde::Deserialize;

use super::prompt::Prompt;
use super::reader::{Id, Part, Read, Reader, Record, TWO, Table, one};
use super::rules::Rules;
use crate::json_stream::Layout;

pub(crate) static READER: Reader = Reader {
    tables: &[Table::only(Layout::Object)],
    parts: &[Part::new("gqa", TWO, Prompt::ShortAnswer).grouped()],
    image_name: Some("{id}.jpg"),
    read,
    ..Reader::USUAL
};

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(rename = "imageId")]
    image_id: Id,
    #[serde(borrow)]
    question: Cow<'a, str>,
    /// The test split has none.
    #[serde(borrow)]
    answer: Option<Cow<'a, str>>,
}

fn read(record: &Record<'_>, rules: &Rules) -> Result<Read, String> {
    let (_, row): (_, Row<'_>) = record.member()?;
    let Some(answer) = row.answer else { return Ok(Read::LeftOut("without an answer")) };
    Ok(Read::Item(0, one(rules.image(&row.image_id.0), &row.question, &answer)))
}
