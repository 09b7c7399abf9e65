//! COCO's captions: a row for each caption, so five for an image.

use std::borrow::Cow;

use serde::Deserialize;

use super::prompt::Prompt;
use super::reader::{Id, ONE, Part, Read, Reader, Record, Table, one};
use super::rules::Rules;
use crate::Item;
use crate::json_stream::Layout;

pub(crate) static READER: Reader = Reader {
    tables: &[Table::only(Layout::ArrayIn("annotations"))],
    parts: &[Part::new("coco-captions", ONE, Prompt::Caption).grouped().captions()],
    image_name: Some("COCO_{split}_{id:012}.jpg"),
    read,
    ..Reader::USUAL
};

#[derive(Deserialize)]
struct Row<'a> {
    image_id: Id,
    #[serde(borrow)]
    caption: Cow<'a, str>,
}

fn read(record: &Record<'_>, rules: &Rules) -> Result<Read, String> {
    let row: Row<'_> = record.parse(0)?;
    let caption = row.caption.trim();
    let item = one(rules.image(&row.image_id.0), "", caption);
    Ok(Read::Item(0, Item { caption: Some(caption.into()), ..item }))
}
