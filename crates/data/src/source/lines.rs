//! JSON lines: the manifests of this project.

use super::config::Turns;
use super::prompt::Prompt;
use super::reader::{Part, Read, Reader, Record, Table};
use super::rules::{Pattern, Rules};
use super::{Format, SourceConfig};
use crate::Item;
use crate::json_stream::Layout;

pub(crate) static READER: Reader = Reader {
    tables: &[Table::only(Layout::Lines)],
    parts: &[Part::new("lines", Turns::All, Prompt::None)],
    read,
    ..Reader::USUAL
};

/// The rules of a manifest without settings.
pub(crate) fn rules() -> Rules {
    Rules::resolve(&SourceConfig::new(Format::Lines, ""), &READER, Pattern::default())
}

fn read(record: &Record<'_>, rules: &Rules) -> Result<Read, String> {
    let mut item = Item::parse(&record.0[0], 0)?;
    let prompt = &rules.parts[0].part.prompt;
    // An instruction to describe the image asks for its caption.
    if let (true, Some(caption)) = (prompt.replaces(), &item.caption) {
        item.qa = vec![(String::new(), caption.clone())];
    }
    Ok(Read::Item(0, item))
}
