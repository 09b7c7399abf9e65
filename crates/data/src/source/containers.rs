//! Containers that hold images together with their texts: WebDataset's tar shards, and Parquet files.
//!
//! Their texts are read when the source is opened and kept in memory; the images are read when they are used. A
//! row of a Parquet file that has no image is therefore a missing image, not a row that is left out.

use serde::Deserialize;

use super::conversation::{Said, turns};
use super::prompt::Prompt;
use super::reader::{ONE, Part, Reader, parse};
use super::rules::Rules;
use super::{Format, Input, Rows, Share, Source, SourceConfig};
use crate::index::{Facts, LeftOut};
use crate::store::tar::Tar;
use crate::{Error, Item, Result, Store};

const PARTS: &[Part] =
    &[Part::new("questions", ONE, Prompt::None), Part::new("captions", ONE, Prompt::Caption).captions()];

/// Tar shards in which files of the same stem are a sample: an image beside `.json` or `.txt`.
pub(crate) static WEBDATASET: Reader = Reader { parts: PARTS, ..Reader::USUAL };

/// Parquet files with images and columns of text.
pub(crate) static PARQUET: Reader = Reader { parts: PARTS, ..Reader::USUAL };

/// The texts about an image: the keys of a `.json` file, or the columns of a Parquet file.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Texts<'a> {
    instruction: Option<String>,
    output: Option<String>,
    question: Option<String>,
    answer: Option<String>,
    qa: Vec<(String, String)>,
    #[serde(borrow)]
    conversations: Vec<Said<'a>>,
    caption: Option<String>,
    text: Option<String>,
}

impl Texts<'_> {
    /// The item with these texts about the image `image`, or why there is none.
    fn item(self, image: String) -> Result<Result<Item, &'static str>, String> {
        let mut qa = self.qa;
        for (asked, answered) in [(self.instruction, self.output), (self.question, self.answer)] {
            match (asked, answered) {
                (Some(asked), Some(answered)) => {
                    qa.push((asked.trim().to_owned(), answered.trim().to_owned()))
                }
                (None, None) => {}
                (Some(_), None) => return Ok(Err("a question without an answer")),
                (None, Some(_)) => return Ok(Err("an answer without a question")),
            }
        }
        qa.extend(turns(&self.conversations)?);
        let caption = self.caption.or(self.text).map(|text| text.trim().to_owned());
        let caption = caption.filter(|text| !text.is_empty());
        if qa.is_empty() && caption.is_none() {
            return Ok(Err("without a text"));
        }
        Ok(Ok(Item { image: Some(image), qa, caption, ..Item::default() }))
    }
}

/// Opens the container that `config` names.
pub(super) fn open(config: &SourceConfig, rules: Rules) -> Result<Source> {
    let container = Store::open(&config.path)?;
    let mut found = Found::new(rules);
    match (&container, config.format) {
        (Store::Tar(tar), Format::WebDataset) => samples(&container, tar, &mut found)?,
        #[cfg(feature = "parquet")]
        (Store::Parquet(parquet), Format::Parquet) => rows(parquet, &mut found)?,
        _ => {
            let kind = if config.format == Format::WebDataset { "a .tar file" } else { "a .parquet file" };
            let message = format!("is neither {kind} nor a folder of them");
            return Err(Error::Setting { path: config.path.clone(), key: "path", message });
        }
    }
    let Found { rules, questions, captions, facts, crc, bytes } = found;
    let store = config.images.as_ref().map_or(Ok(container), Store::open)?;
    let split = questions.len();
    let items = questions.into_iter().chain(captions).collect();
    let (path, format, share) = (config.path.clone(), config.format, Share::Weight(1.0));
    let inputs = vec![Input { key: "path", path: path.clone(), print: Some((bytes, crc.finalize())) }];
    let rows = Rows::Memory { name: path.display().to_string(), items, split, facts };
    Ok(Source { path, format, store, share, whole: false, rules, rows, inputs })
}

/// The items that were found so far.
struct Found {
    rules: Rules,
    questions: Vec<Item>,
    captions: Vec<Item>,
    facts: Facts,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl Found {
    fn new(rules: Rules) -> Found {
        let (facts, crc) = (Facts::default(), crc32fast::Hasher::new());
        Found { rules, questions: Vec::new(), captions: Vec::new(), facts, crc, bytes: 0 }
    }

    /// Counts a text that was read, for the fingerprint of the source.
    fn read(&mut self, text: &[u8]) {
        self.bytes += text.len() as u64;
        self.crc.update(&(text.len() as u64).to_le_bytes());
        self.crc.update(text);
    }

    /// Takes the next row: its item, or why there is none.
    fn add(&mut self, item: Result<Item, &'static str>) {
        self.facts.rows += 1;
        let number = u32::try_from(self.facts.rows).unwrap_or(u32::MAX);
        let filtered = |item: Item| {
            let why = item.image.as_deref().and_then(|image| self.rules.filtered(image));
            why.map_or(Ok(item), Err)
        };
        match item.and_then(filtered) {
            Ok(item) if item.qa.is_empty() => {
                let qa = item.caption.iter().map(|caption| (String::new(), caption.clone())).collect();
                self.captions.push(Item { line: number as usize, qa, ..item });
            }
            Ok(item) => self.questions.push(Item { line: number as usize, ..item }),
            Err(why) => {
                let left = self.facts.left_out.entry(why.to_owned());
                left.or_insert(LeftOut { count: 0, first: number }).count += 1;
            }
        }
    }
}

/// The samples of tar shards.
fn samples(store: &Store, tar: &Tar, found: &mut Found) -> Result<()> {
    for sample in tar.samples() {
        let Some(image) = sample.image() else {
            found.add(Err("without an image"));
            continue;
        };
        let (json, txt) = (sample.member("json"), sample.member("txt"));
        let Some(name) = json.or(txt) else {
            found.add(Err("without .json and .txt"));
            continue;
        };
        let bytes = store.read(name)?;
        found.read(&bytes);
        let fault = |message| Error::Row { name: store.name(name), row: 0, message };
        let texts = match json {
            Some(_) => parse(&bytes).map_err(fault)?,
            None => {
                let text = String::from_utf8(bytes).map_err(|_| fault("is not UTF-8".into()))?;
                Texts { caption: Some(text), ..Texts::default() }
            }
        };
        found.add(texts.item(image.to_owned()).map_err(fault)?);
    }
    Ok(())
}

/// The columns of a Parquet file that are used; `conversations` and `qa` are JSON.
#[cfg(feature = "parquet")]
const COLUMNS: [&str; 8] =
    ["instruction", "output", "question", "answer", "qa", "conversations", "caption", "text"];

/// The rows of Parquet files.
#[cfg(feature = "parquet")]
fn rows(parquet: &crate::store::parquet::Parquet, found: &mut Found) -> Result<()> {
    let columns: Vec<&str> =
        COLUMNS.into_iter().filter(|name| parquet.columns().any(|c| c == *name)).collect();
    let name = |row: u64| parquet.name_of(row);
    parquet.texts(&columns, |row, values| {
        let fault = |message| Error::Row {
            name: parquet.path().display().to_string(),
            row: row as usize + 1,
            message,
        };
        let mut texts = Texts::default();
        for (column, value) in columns.iter().zip(values) {
            found.read(value.as_deref().unwrap_or_default().as_bytes());
            let Some(value) = value else { continue };
            let own = || Some(value.clone());
            match *column {
                "instruction" => texts.instruction = own(),
                "output" => texts.output = own(),
                "question" => texts.question = own(),
                "answer" => texts.answer = own(),
                "caption" => texts.caption = own(),
                "text" => texts.text = own(),
                "qa" => texts.qa = parse(value.as_bytes()).map_err(|why| fault(format!("`qa`: {why}")))?,
                _ => {
                    let said = parse(value.as_bytes());
                    texts.conversations = said.map_err(|why| fault(format!("`conversations`: {why}")))?;
                }
            }
        }
        found.add(texts.item(name(row)).map_err(fault)?);
        Ok(true)
    })
}
