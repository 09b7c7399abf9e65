//! A source: a data set as it is published, its images, and the rules of what is drawn from it.
//!
//! Rows stay in the published files; an index says where they are. A reader for a further format is one file
//! here: a [`Reader`] with the defaults of the format and a function from a row to an [`Item`], which
//! `Format::reader` returns.

mod a_okvqa;
mod coco;
mod config;
mod containers;
mod conversation;
mod folder;
mod gqa;
mod lines;
mod lrv;
mod mimic_it;
mod mix665k;
mod ocr_vqa;
mod open;
mod prompt;
mod reader;
mod rules;
mod st_vqa;
mod textcaps;
mod textvqa;
mod vqa;

pub use config::{Format, PartConfig, SourceConfig, Turns};
pub use prompt::Prompt;
pub(crate) use reader::{Part, Read, Reader, read, without_choices};
pub(crate) use rules::{PartRules, Rules, key};

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::index::{Facts, Index, Row, bit, text};
use crate::json_stream::Layout;
use crate::published::Published;
use crate::{Content, Error, Item, Manifest, Result, Store};

impl Format {
    /// How the format is read.
    pub(crate) fn reader(self) -> &'static Reader {
        match self {
            Format::Lines => &lines::READER,
            Format::Conversation => &conversation::CONVERSATION,
            Format::Mix665k => &mix665k::READER,
            Format::Llavar => &conversation::LLAVAR,
            Format::Lrv => &lrv::READER,
            Format::MimicIt => &mimic_it::READER,
            Format::StVqa => &st_vqa::READER,
            Format::TextVqa => &textvqa::READER,
            Format::AOkvqa => &a_okvqa::READER,
            Format::OkVqa => &vqa::OK_VQA,
            Format::Gqa => &gqa::READER,
            Format::OcrVqa => &ocr_vqa::READER,
            Format::VqaV2 => &vqa::VQA_V2,
            Format::TextCaps => &textcaps::READER,
            Format::CocoCaptions => &coco::READER,
            Format::Folder => &folder::READER,
            Format::WebDataset => &containers::WEBDATASET,
            Format::Parquet => &containers::PARQUET,
        }
    }

    /// Its name in a config.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).ok();
        name.as_ref().and_then(|name| name.as_str()).unwrap_or_default().to_owned()
    }
}

/// A published file that a source reads, for a comparison when a run is resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The key that names it: `path`, `annotations` or `okvqa_questions`.
    pub key: &'static str,
    /// Its path; of a file in an archive, that of the archive.
    pub path: PathBuf,
    /// Its length in bytes and CRC-32, if it was read just now; otherwise it is to be read.
    pub print: Option<(u64, u32)>,
}

/// How many samples of a source an epoch has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Share {
    /// Each sample so often.
    Weight(f64),
    /// So many.
    Count(u64),
}

/// A data set as it is published, with its images.
pub struct Source {
    path: PathBuf,
    format: Format,
    store: Store,
    pub(crate) share: Share,
    /// Whether all that an item has is one sample, instead of each turn.
    whole: bool,
    rules: Rules,
    rows: Rows,
    inputs: Vec<Input>,
}

/// Where the items of a source are.
enum Rows {
    /// In published files.
    Indexed { files: Vec<Published>, index: Index },
    /// In memory. `name` is that of their file; the items from `split` on belong to the second part.
    Memory { name: String, items: Vec<Item>, split: usize, facts: Facts },
    /// Images beside text files.
    Folder { images: Vec<String>, facts: Facts },
}

/// What is known of an item without reading it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    /// Number of its questions.
    pub(crate) turns: u16,
    /// The number of its part.
    pub(crate) tag: u8,
}

impl Source {
    /// The same source with a weight: how often each sample is seen per epoch.
    pub fn weighted(self, weight: f64) -> Source {
        Source { share: Share::Weight(weight), ..self }
    }

    /// The path that names it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format in which it is published.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Where its images are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Number of its items. An item is an image with texts about it; its turns are the samples.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Indexed { index, .. } => index.rows.len(),
            Rows::Memory { items, .. } => items.len(),
            Rows::Folder { images, .. } => images.len(),
        }
    }

    /// Whether it has no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Item `i`, read from its published file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or has changed since it was indexed.
    pub fn item(&self, i: usize) -> Result<Item> {
        match &self.rows {
            Rows::Memory { items, .. } => Ok(items[i].clone()),
            Rows::Folder { images, .. } => folder::item(&self.path, &images[i], i),
            Rows::Indexed { files, index } => self.indexed(files, index, &index.rows[i]),
        }
    }

    fn indexed(&self, files: &[Published], index: &Index, row: &Row) -> Result<Item> {
        let reader = self.format.reader();
        let tables = reader.tables.len();
        let mut item: Option<Item> = None;
        for spans in index.spans(row, tables).chunks(tables) {
            let bytes = spans.iter().map(|span| files[span.file()].read(span)).collect::<Result<Vec<_>>>()?;
            let texts: Vec<Cow<'_, [u8]>> =
                bytes.iter().zip(reader.tables).map(|(bytes, table)| text(table.layout, bytes)).collect();
            let changed = || Error::Changed { name: files[0].name.clone() };
            let Ok(Read::Item(_, record)) = read(reader, &texts, &self.rules) else { return Err(changed()) };
            match &mut item {
                None => item = Some(record),
                Some(item) => item.qa.extend(record.qa),
            }
        }
        let mut item = item.unwrap_or_default();
        item.line = row.number as usize;
        if self.rules.parts[row.tag as usize].part.unique {
            let mut seen = std::collections::HashSet::new();
            item.qa.retain(|(question, _)| seen.insert(without_choices(question).to_owned()));
        }
        Ok(item)
    }

    /// All items in memory.
    pub(crate) fn manifest(self) -> Result<Manifest> {
        let items = (0..self.len()).map(|i| self.item(i)).collect::<Result<_>>()?;
        let print = self.inputs.first().and_then(|input| input.print).unwrap_or_default();
        let file = match &self.rows {
            Rows::Indexed { files, .. } => files[0].name.clone(),
            _ => self.path.display().to_string(),
        };
        Ok(Manifest { path: self.path, store: self.store, items, print, file })
    }

    /// What is known of item `i` without reading it.
    pub(crate) fn about(&self, i: usize) -> About {
        match &self.rows {
            Rows::Indexed { index, .. } => About { turns: index.rows[i].turns, tag: index.rows[i].tag },
            Rows::Memory { items, split, .. } => {
                About { turns: items[i].qa.len().min(65535) as u16, tag: u8::from(i >= *split) }
            }
            Rows::Folder { .. } => About { turns: 1, tag: 0 },
        }
    }

    /// Removes the items that have nothing to train on for `content`.
    pub(crate) fn retain(&mut self, content: Content) {
        match &mut self.rows {
            Rows::Indexed { index, .. } => index.rows.retain(|row| row.has & bit(content) != 0),
            Rows::Memory { items, split, .. } => {
                let first = items[..*split].iter().filter(|item| item.has(content)).count();
                items.retain(|item| item.has(content));
                *split = first;
            }
            Rows::Folder { .. } => {}
        }
    }

    /// Its parts with the range of their items.
    pub(crate) fn parts(&self) -> Vec<(&PartRules, Range<usize>)> {
        let index = match &self.rows {
            Rows::Indexed { index, .. } => index,
            Rows::Memory { split, .. } => {
                let ranges = [0..*split, *split..self.len()];
                return self.rules.parts.iter().zip(ranges).collect();
            }
            Rows::Folder { .. } => return vec![(&self.rules.parts[0], 0..self.len())],
        };
        let begin = |tag: usize| index.rows.partition_point(|row| usize::from(row.tag) < tag);
        self.rules.parts.iter().enumerate().map(|(tag, part)| (part, begin(tag)..begin(tag + 1))).collect()
    }

    /// The rules of an item's part.
    pub(crate) fn part(&self, i: usize) -> &Part {
        &self.rules.parts[self.about(i).tag as usize].part
    }

    /// Whether all that an item has is one sample, instead of each turn.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// What is known of the published files.
    pub(crate) fn facts(&self) -> Facts {
        match &self.rows {
            Rows::Indexed { index, .. } => index.facts.clone(),
            Rows::Memory { facts, .. } => facts.clone(),
            Rows::Folder { facts, .. } => facts.clone(),
        }
    }

    /// The published files that it reads.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The name of the file that item `i` is in.
    fn file(&self, i: usize) -> String {
        match &self.rows {
            Rows::Indexed { files, .. } => files[0].name.clone(),
            Rows::Memory { name, .. } => name.clone(),
            Rows::Folder { images, .. } => self.store.name(&images[i]),
        }
    }

    /// The number of item `i` in its file: its line, or its row.
    fn number(&self, i: usize) -> usize {
        match &self.rows {
            Rows::Indexed { index, .. } => index.rows[i].number as usize,
            Rows::Memory { items, .. } => items[i].line,
            Rows::Folder { .. } => i + 1,
        }
    }

    fn in_lines(&self) -> bool {
        self.format.reader().tables.first().is_some_and(|table| table.layout == Layout::Lines)
    }

    /// Name of item `i`: its image, or its place in the file.
    pub(crate) fn name(&self, i: usize, item: &Item) -> String {
        item.image.as_ref().map_or_else(|| self.at(i), |image| self.store.name(image))
    }

    fn at(&self, i: usize) -> String {
        match (&self.rows, self.in_lines()) {
            (Rows::Folder { .. }, _) => self.file(i),
            (_, true) => format!("{}, line {}", self.file(i), self.number(i)),
            (_, false) => format!("{}, row {}", self.file(i), self.number(i)),
        }
    }

    /// The place of item `i` and the name of its image, for messages.
    pub(crate) fn place(&self, i: usize) -> String {
        let image = self.item(i).ok().and_then(|item| item.image);
        let image = image.filter(|_| !matches!(self.rows, Rows::Folder { .. }));
        let image = image.map_or_else(String::new, |image| format!(": {}", self.store.name(&image)));
        pheye_files::quoted(&format!("{}{image}", self.at(i)))
    }

    /// Adds the place of item `i` to the error `source`, which is about the item.
    pub(crate) fn fault(&self, i: usize, source: Error) -> Error {
        let (name, row, source) = (self.file(i), self.number(i), Box::new(source));
        match self.in_lines() {
            true => Error::Item { name, line: row, source },
            false => Error::RowItem { name, row, source },
        }
    }
}

impl From<Manifest> for Source {
    /// The items of the manifest, as they are in memory; all that an item has is one sample.
    fn from(manifest: Manifest) -> Source {
        let Manifest { path, store, items, print, file: name } = manifest;
        let inputs = vec![Input { key: "path", path: path.clone(), print: Some(print) }];
        let (split, facts) = (items.len(), Facts { rows: items.len() as u64, ..Facts::default() });
        let rows = Rows::Memory { name, items, split, facts };
        let (format, share, rules) = (Format::Lines, Share::Weight(1.0), lines::rules());
        Source { path, format, store, share, whole: true, rules, rows, inputs }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} of {} items", self.format.name(), self.path.display(), self.len())
    }
}
