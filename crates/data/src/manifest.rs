//! The format of data sets: JSON Lines, with one image or text per line.
//!
//! ```json
//! {"image": "cats/1.jpg", "instruction": "How many cats?", "output": "two"}
//! {"image": "cats/2.jpg", "qa": [["how many?", "two"], ["what colour?", "grey"]], "caption": "two cats"}
//! {"text": "Once upon a time."}
//! ```
//! Paths are relative to the manifest. Other keys are ignored.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, Store};

/// Which texts of a data set are trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// Questions about images, with their answers.
    Questions,
    /// Captions of images.
    Captions,
    /// Texts, captions, and questions with answers, all without images.
    Text,
}

impl Content {
    pub(crate) fn needs(self) -> &'static str {
        match self {
            Content::Questions => "an image with `instruction` and `output`, or with `qa`",
            Content::Captions => "an image with `caption`",
            Content::Text => "`text`, `caption`, `qa`, or `instruction` and `output`",
        }
    }
}

/// One line of a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    /// Name of the image in the store.
    pub image: Option<String>,
    /// Questions (instructions) with their answers (outputs).
    pub qa: Vec<(String, String)>,
    /// A description of the image.
    pub caption: Option<String>,
    /// A text that is not about an image.
    pub text: Option<String>,
    /// Its line in the manifest, from 1.
    pub line: usize,
}

#[derive(Deserialize)]
struct Line {
    image: Option<String>,
    instruction: Option<String>,
    output: Option<String>,
    #[serde(default)]
    qa: Vec<(String, String)>,
    caption: Option<String>,
    text: Option<String>,
}

impl Item {
    /// Whether the item has anything to train on for `content`.
    pub fn has(&self, content: Content) -> bool {
        match content {
            Content::Questions => self.image.is_some() && !self.qa.is_empty(),
            Content::Captions => self.image.is_some() && self.caption.is_some(),
            Content::Text => self.text.is_some() || self.caption.is_some() || !self.qa.is_empty(),
        }
    }

    fn parse(json: &[u8], line: usize) -> Result<Item, String> {
        let mut l = Line::parse(json)?;
        match (l.instruction, l.output) {
            (Some(instruction), Some(output)) => l.qa.push((instruction, output)),
            (None, None) => {}
            (Some(_), None) => return Err("`instruction` without `output`".into()),
            (None, Some(_)) => return Err("`output` without `instruction`".into()),
        }
        let item = Item { image: l.image, qa: l.qa, caption: l.caption, text: l.text, line };
        if !item.has(Content::Text) {
            return Err(format!("has none of {}", Content::Text.needs()));
        }
        Ok(item)
    }
}

impl Line {
    fn parse(json: &[u8]) -> Result<Line, String> {
        if json.starts_with(b"[") {
            return Err("one object a line is wanted (JSON Lines), this is an array; \
                        `jq -c '.[]' OLD > NEW` turns one array into lines"
                .into());
        }
        let error = match serde_json::from_slice(json) {
            Ok(line) => return Ok(line),
            Err(error) => error,
        };
        if let Some(line) = without_lone_surrogates(json).and_then(|json| serde_json::from_slice(&json).ok())
        {
            return Ok(line);
        }
        let why = error.to_string().replace(" at line 1", ",");
        Err(match () {
            () if json.contains(&0) => "holds NUL bytes, as UTF-16 does; save it as UTF-8".into(),
            () if error.is_eof() && json.starts_with(b"{") => format!(
                "{why}: the object does not end on its line; if it goes on in the next, \
                 `jq -c . OLD > NEW` puts each object on one line"
            ),
            () => why,
        })
    }
}

/// `json` with every escaped lone surrogate replaced by U+FFFD, or `None` if there is none. Python writes
/// lone surrogates for text that was cut inside a surrogate pair, Python reads them, and JSON's grammar
/// allows them (RFC 8259 §8.2).
fn without_lone_surrogates(json: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut out, mut at) = (json.to_vec(), 0);
    while at < json.len() {
        at += match (json[at], unit(at)) {
            (_, Some(0xd800..0xdc00)) if matches!(unit(at + 6), Some(0xdc00..0xe000)) => 12,
            (_, Some(0xd800..0xe000)) => {
                out[at..at + 6].copy_from_slice(b"\\ufffd");
                6
            }
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    (out != json).then_some(out)
}

/// A data set.
#[derive(Debug)]
pub struct Manifest {
    /// The path that was opened.
    pub path: PathBuf,
    /// Where its images are stored.
    pub store: Store,
    /// Its items, one per line that is not blank.
    pub items: Vec<Item>,
    /// The length in bytes and CRC-32 of the manifest file, to detect changes.
    pub print: (u64, u32),
    /// Name of the manifest file in the store.
    file: String,
}

/// Maximum length of a line in bytes, far above the longest text that can be trained on.
const LINE_LIMIT: u64 = 16 << 20;

impl Manifest {
    /// Opens a `.jsonl` file, or the `manifest.jsonl` in a folder or a `.zip` archive: a regular file of at
    /// most 4 GiB, with lines of at most 16 MiB.
    ///
    /// # Errors
    /// Returns [`Error::Io`], [`Error::Zip`] or [`Error::Duplicate`] if the file or archive cannot be read,
    /// and [`Error::Line`] for the first invalid line.
    pub fn open(path: impl AsRef<Path>) -> Result<Manifest> {
        let path = path.as_ref();
        let is_zip = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("zip"));
        let (store, file) = if is_zip || path.is_dir() {
            (Store::open(path)?, "manifest.jsonl".into())
        } else {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            (Store::Folder(path.parent().unwrap_or(Path::new("")).into()), file)
        };
        let file = file.into_owned();
        let (items, print) = store.read_manifest(&file, |reader| lines(reader, &store, &file))?;
        Ok(Manifest { path: path.into(), store, items, print, file })
    }

    /// Name of item `i` in errors: its image, or its line.
    pub fn name(&self, i: usize) -> String {
        match &self.items[i].image {
            Some(image) => self.store.name(image),
            None => format!("{}, line {}", self.store.name(&self.file), self.items[i].line),
        }
    }

    /// The line of an item and the name of its image, for messages.
    pub(crate) fn place(&self, item: &Item) -> String {
        let image =
            item.image.as_ref().map_or_else(String::new, |image| format!(": {}", self.store.name(image)));
        pheye_files::quoted(&format!("{}, line {}{image}", self.store.name(&self.file), item.line))
    }

    /// Adds the line of item `i` to the error `source`, which is about the item.
    pub(crate) fn fault(&self, i: usize, source: Error) -> Error {
        let name = self.store.name(&self.file);
        Error::Item { name, line: self.items[i].line, source: Box::new(source) }
    }
}

/// Parses the items of a manifest; also returns its length in bytes and its CRC-32.
fn lines(reader: &mut dyn BufRead, store: &Store, file: &str) -> Result<(Vec<Item>, (u64, u32))> {
    let (mut items, mut bytes) = (Vec::new(), Vec::new());
    let (mut len, mut crc) = (0, crc32fast::Hasher::new());
    for number in 1.. {
        bytes.clear();
        let read = reader.take(LINE_LIMIT + 1).read_until(b'\n', &mut bytes);
        if read.map_err(|source| store.io(file, source))? == 0 {
            break;
        }
        (len, _) = (len + bytes.len() as u64, crc.update(&bytes));
        let fault = |message| Error::Line { name: store.name(file), line: number, message };
        if bytes.len() as u64 > LINE_LIMIT {
            return Err(fault(format!("longer than the limit of {LINE_LIMIT} bytes")));
        }
        let utf16 = bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF");
        if number == 1 && utf16 {
            return Err(fault("it is UTF-16; save it as UTF-8".into()));
        }
        // A byte order mark may be at the start of the file, and in concatenated files also at the start of
        // other lines.
        let json = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes).trim_ascii();
        if !json.is_empty() {
            items.push(Item::parse(json, number).map_err(fault)?);
        }
    }
    Ok((items, (len, crc.finalize())))
}
