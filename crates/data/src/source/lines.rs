//! JSON lines: the manifests of this project.

use super::config::Turns;
use super::prompt::Prompt;
use super::reader::{Part, Read, Reader, Record, Table};
use super::rules::{PartRules, Pattern, Rules};
use super::{Format, SourceConfig};
use crate::Item;
use crate::json_stream::Layout;

pub(crate) static READER: Reader = Reader {
    version: 1,
    tables: &[Table { key: "path", layout: Layout::Lines, id: None }],
    parts: &[Part::new("lines", Turns::All, Prompt::None)],
    image_name: None,
    include: &[],
    read,
};

/// The rules of a manifest without settings.
pub(crate) fn rules() -> Rules {
    Rules::resolve(&SourceConfig::new(Format::Lines, ""), &READER, Pattern::default())
}

fn read(record: &Record<'_>, rules: &Rules) -> Result<Read, String> {
    let mut item = Item::parse(&record.0[0], 0)?;
    let PartRules { prompt, .. } = &rules.parts[0];
    // An instruction to describe the image asks for its caption.
    if let (true, Some(caption)) = (prompt.replaces(), &item.caption) {
        item.qa = vec![(String::new(), caption.clone())];
    }
    Ok(Read::Item(0, item))
}
