//! The index of a source: where the rows of each item are in the published files. Rows are not kept in
//! memory; an item takes about 32 bytes here.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::json_stream::{Block, Broken, Layout, Scanner};
use crate::published::{Published, Span};
use crate::source::{PartRules, Read, Reader, Rules, key, read, without_choices};
use crate::{Content, Error, Item, Result};

/// Bytes of a published file that are scanned at once.
const PIECE: usize = 4 << 20;

/// An item of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its first span in [`Index::spans`].
    pub(crate) first: u32,
    /// The number of its first row in the published file, from 1.
    pub(crate) number: u32,
    /// Number of its rows; each has one span in each published file.
    pub(crate) records: u16,
    /// Number of its questions.
    pub(crate) turns: u16,
    /// The number of its part.
    pub(crate) tag: u8,
    /// The contents that it has, as bits.
    pub(crate) has: u8,
}

/// Rows that are not used for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Their number.
    pub count: u64,
    /// The number of the first in its file, from 1.
    pub first: u32,
}

/// What is known of the published files after they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Number of rows.
    pub(crate) rows: u64,
    /// Rows that are not used, by reason.
    pub(crate) left_out: BTreeMap<String, LeftOut>,
    /// Length in bytes and CRC-32 of each file.
    pub(crate) prints: Vec<(u64, u32)>,
}

/// The index of a source.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// Its items; those of a part follow each other.
    pub(crate) rows: Vec<Row>,
    /// The spans of the items' rows.
    pub(crate) spans: Vec<Span>,
    /// What is known of the published files.
    pub(crate) facts: Facts,
}

/// The bit of `content` in [`Row::has`].
pub(crate) fn bit(content: Content) -> u8 {
    1 << content as u8
}

/// The contents that the item has, as bits.
fn contents(item: &Item) -> u8 {
    let all = [Content::Questions, Content::Captions, Content::Text];
    all.into_iter().filter(|content| item.has(*content)).map(bit).sum()
}

/// The text of a row: a member of an object gets braces around it.
pub(crate) fn text(layout: Layout, bytes: &[u8]) -> Cow<'_, [u8]> {
    if layout.members() { Cow::Owned([b"{", bytes, b"}"].concat()) } else { Cow::Borrowed(bytes) }
}

/// The error `message` about row `row` of `file`.
pub(crate) fn fault(file: &Published, layout: Layout, row: u32, message: String) -> Error {
    let (name, row) = (file.name.clone(), row as usize);
    match layout {
        Layout::Lines => Error::Line { name, line: row, message },
        _ => Error::Row { name, row, message },
    }
}

/// Scans a file and calls `each` with its blocks. Returns its length and CRC-32.
pub(crate) fn scan(
    file: &Published,
    layout: Layout,
    mut each: impl FnMut(&Block<'_>) -> Result<()>,
) -> Result<(u64, u32)> {
    let mut scanner = Scanner::new(file.reader(), layout, PIECE);
    loop {
        match scanner.block() {
            Ok(Some(block)) => each(&block)?,
            Ok(None) => return Ok(scanner.print()),
            Err(Broken::Io(source)) => return Err(Error::Io { name: file.name.clone(), source }),
            Err(Broken::Form { row, byte, message }) => {
                let place = if layout == Layout::Lines { String::new() } else { format!(" (byte {byte})") };
                return Err(fault(file, layout, row, message + &place));
            }
        }
    }
}

/// A row of the second published file.
struct Note {
    span: Span,
    number: u32,
    used: bool,
}

/// A row of the first published file.
struct Seen {
    spans: [Span; 2],
    number: u32,
    note: Option<u64>,
    read: Result<Use, &'static str>,
}

/// What the index needs of a row that is used.
struct Use {
    tag: u8,
    image: u64,
    questions: Vec<u64>,
    has: u8,
}

struct Builder<'a> {
    files: &'a [Published],
    reader: &'a Reader,
    rules: &'a Rules,
    notes: HashMap<u64, Note>,
    rows: Vec<Row>,
    records: Vec<(u32, [Span; 2])>,
    /// The items of images.
    groups: HashMap<(u8, u64), u32>,
    /// The questions of items that have each once.
    asked: HashSet<(u32, u64)>,
    facts: Facts,
}

impl Index {
    /// Reads the published files of a source.
    ///
    /// # Errors
    /// Returns an error that names file and row if a file cannot be read or has another form.
    pub(crate) fn build(files: &[Published], reader: &Reader, rules: &Rules) -> Result<Index> {
        let mut builder = Builder {
            files,
            reader,
            rules,
            notes: HashMap::new(),
            rows: Vec::new(),
            records: Vec::new(),
            groups: HashMap::new(),
            asked: HashSet::new(),
            facts: Facts::default(),
        };
        let notes = if reader.tables.len() > 1 { Some(builder.notes()?) } else { None };
        let print = scan(&files[0], reader.tables[0].layout, |block| builder.block(block))?;
        builder.facts.prints = [print].into_iter().chain(notes).collect();
        let mut unused: Vec<u32> = builder.notes.values().filter(|n| !n.used).map(|n| n.number).collect();
        unused.sort_unstable();
        unused.into_iter().for_each(|number| builder.leave_out("annotation without a question", number));
        Ok(builder.finish())
    }

    /// The spans of a row.
    pub(crate) fn spans(&self, row: &Row, tables: usize) -> &[Span] {
        &self.spans[row.first as usize..][..row.records as usize * tables]
    }
}

impl Builder<'_> {
    fn leave_out(&mut self, why: &str, first: u32) {
        self.facts.left_out.entry(why.into()).or_insert(LeftOut { count: 0, first }).count += 1;
    }

    /// Reads the ids of the second file.
    fn notes(&mut self) -> Result<(u64, u32)> {
        let (file, table) = (&self.files[1], &self.reader.tables[1]);
        let Some(id) = table.id else { return Ok((0, 0)) };
        scan(file, table.layout, |block| {
            let notes = block.rows.par_iter().map(|found| {
                let bytes = &block.bytes[found.range.clone()];
                let id = id(&text(table.layout, bytes));
                let id = id.map_err(|why| fault(file, table.layout, found.number, why))?;
                let span = Span::new(1, block.offset + found.range.start as u64, bytes);
                Ok((key(&[&id]), Note { span, number: found.number, used: false }))
            });
            for note in notes.collect::<Vec<Result<_>>>() {
                let (id, note) = note?;
                let number = note.number;
                match self.notes.entry(id) {
                    Entry::Vacant(free) => _ = free.insert(note),
                    Entry::Occupied(_) => self.leave_out("annotation that is there twice", number),
                }
            }
            Ok(())
        })
    }

    fn block(&mut self, block: &Block<'_>) -> Result<()> {
        let this = &*self;
        let entries: Vec<Result<Seen>> = block
            .rows
            .par_iter()
            .map(|found| {
                let bytes = &block.bytes[found.range.clone()];
                let span = Span::new(0, block.offset + found.range.start as u64, bytes);
                this.entry(span, bytes, found.number)
            })
            .collect();
        entries.into_iter().try_for_each(|entry| self.add(entry?))
    }

    fn entry(&self, span: Span, bytes: &[u8], number: u32) -> Result<Seen> {
        let table = &self.reader.tables[0];
        let wrong = |why| fault(&self.files[0], table.layout, number, why);
        let mut entry = Seen { spans: [span, span], number, note: None, read: Err("") };
        let mut texts = vec![text(table.layout, bytes)];
        if let Some(id) = table.id {
            let id = key(&[&id(&texts[0]).map_err(wrong)?]);
            let Some(note) = self.notes.get(&id) else {
                entry.read = Err("question without an annotation");
                return Ok(entry);
            };
            (entry.spans[1], entry.note) = (note.span, Some(id));
            texts.push(Cow::Owned(self.files[1].read(&note.span)?));
        }
        entry.read = self.used(&texts).map_err(wrong)?;
        Ok(entry)
    }

    /// What the index needs of a row, or why it is left out.
    fn used(&self, texts: &[Cow<'_, [u8]>]) -> Result<Result<Use, &'static str>, String> {
        let (tag, item) = match read(self.reader, texts, self.rules)? {
            Read::LeftOut(why) => return Ok(Err(why)),
            Read::Item(tag, item) => (tag, item),
        };
        let image = item.image.as_deref().unwrap_or("");
        if let Some(why) = self.rules.filtered(image) {
            return Ok(Err(why));
        }
        let PartRules { part, weight } = &self.rules.parts[tag];
        if *weight == 0.0 {
            return Ok(Err("part of weight 0"));
        }
        let questions = match part.unique {
            true => item.qa.iter().map(|(question, _)| key(&[without_choices(question)])).collect(),
            false => vec![0; item.qa.len()],
        };
        Ok(Ok(Use { tag: tag as u8, image: key(&[image]), questions, has: contents(&item) }))
    }

    fn add(&mut self, entry: Seen) -> Result<()> {
        self.facts.rows += 1;
        if let Some(note) = entry.note.and_then(|id| self.notes.get_mut(&id)) {
            note.used = true;
        }
        let number = entry.number;
        let row = match entry.read {
            Err(why) => {
                self.leave_out(why, number);
                return Ok(());
            }
            Ok(row) => row,
        };
        let part = &self.rules.parts[row.tag as usize].part;
        let new = self.rows.len() as u32;
        let group = (row.tag, row.image);
        let item = if part.grouped { *self.groups.entry(group).or_insert(new) } else { new };
        let mut turns = row.questions.len();
        if part.unique {
            turns = row.questions.iter().filter(|question| self.asked.insert((item, **question))).count();
        }
        if item == new {
            self.rows.push(Row { first: 0, number, records: 0, turns: 0, tag: row.tag, has: 0 });
        } else if turns == 0 {
            self.leave_out("the same question about the same image again", number);
            return Ok(());
        }
        let file = &self.files[0];
        let many = || fault(file, self.reader.tables[0].layout, number, "more than 65535 turns".into());
        let item_row = &mut self.rows[item as usize];
        item_row.records = item_row.records.checked_add(1).ok_or_else(many)?;
        let sum = usize::from(item_row.turns) + turns;
        item_row.turns = u16::try_from(sum).map_err(|_| many())?;
        item_row.has |= row.has;
        self.records.push((item, entry.spans));
        Ok(())
    }

    /// Sorts the items by part, and the spans by item.
    fn finish(self) -> Index {
        let Builder { rows, records, reader, facts, .. } = self;
        let tables = reader.tables.len();
        let mut order: Vec<u32> = (0..rows.len() as u32).collect();
        order.sort_by_key(|i| rows[*i as usize].tag);
        let mut first = vec![0u32; rows.len()];
        let mut at = 0;
        for i in &order {
            first[*i as usize] = at;
            at += u32::from(rows[*i as usize].records) * tables as u32;
        }
        let sorted = order.iter().map(|i| Row { first: first[*i as usize], ..rows[*i as usize] }).collect();
        let mut spans = vec![Span { place: 0, len: 0, crc: 0 }; at as usize];
        for (item, of_record) in records {
            let at = &mut first[item as usize];
            spans[*at as usize..][..tables].copy_from_slice(&of_record[..tables]);
            *at += tables as u32;
        }
        Index { rows: sorted, spans, facts }
    }
}
