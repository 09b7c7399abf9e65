//! MIMIC-IT: instructions about images that are published in a file of their own.

use std::borrow::Cow;

use serde::Deserialize;

use super::prompt::Prompt;
use super::reader::{Id, ONE, Part, Read, Reader, Record, Table, one};
use super::rules::Rules;
use crate::json_stream::Layout;

pub(crate) static READER: Reader = Reader {
    tables: &[Table::only(Layout::ObjectIn("data"))],
    parts: &[Part::new("mimic-it", ONE, Prompt::None)],
    image_name: Some("{id}"),
    read,
    ..Reader::USUAL
};

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    instruction: Cow<'a, str>,
    #[serde(borrow)]
    answer: Cow<'a, str>,
    image_ids: Vec<Id>,
}

fn read(record: &Record<'_>, rules: &Rules) -> Result<Read, String> {
    let (_, row): (_, Row<'_>) = record.member()?;
    Ok(match row.image_ids.as_slice() {
        [] => Read::LeftOut("without an image (text only)"),
        [Id(id)] => Read::Item(0, one(rules.image(id), &row.instruction, &row.answer)),
        _ => Read::LeftOut("several images"),
    })
}
