//! LRV-Instruction: questions about images of Visual Genome and about charts.

use std::borrow::Cow;

use serde::Deserialize;

use super::prompt::Prompt;
use super::reader::{Id, ONE, Part, Read, Reader, Record, Table, one};
use super::rules::Rules;
use crate::json_stream::Layout;

pub(crate) static READER: Reader = Reader {
    tables: &[Table::only(Layout::Array)],
    parts: &[Part::new("lrv", ONE, Prompt::None)],
    image_name: Some("{id}.jpg"),
    read,
    ..Reader::USUAL
};

#[derive(Deserialize)]
struct Row<'a> {
    image_id: Id,
    #[serde(borrow)]
    question: Cow<'a, str>,
    #[serde(borrow)]
    answer: Cow<'a, str>,
}

const EXTENSIONS: [&str; 4] = [".png", ".jpg", ".jpeg", ".webp"];

fn read(record: &Record<'_>, rules: &Rules) -> Result<Read, String> {
    let row: Row<'_> = record.parse(0)?;
    let Id(id) = row.image_id;
    // The ids of charts have their extension already.
    let named = EXTENSIONS.iter().any(|extension| id.to_ascii_lowercase().ends_with(extension));
    let image = if named { id } else { rules.image(&id) };
    Ok(Read::Item(0, one(image, &row.question, &row.answer)))
}
