//! The format of this project's data sets: JSON Lines, with one image or text per line.
//!
//! ```json
//! {"image": "cats/1.jpg", "instruction": "How many cats?", "output": "two"}
//! {"image": "cats/2.jpg", "qa": [["how many?", "two"], ["what colour?", "grey"]], "caption": "two cats"}
//! {"text": "Once upon a time."}
//! ```
//! Paths are relative to the manifest. Other keys are ignored.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Result, Source, Store};

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

    /// Parses a line of a manifest.
    pub(crate) fn parse(json: &[u8], line: usize) -> Result<Item, String> {
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
pub(crate) fn without_lone_surrogates(json: &[u8]) -> Option<Vec<u8>> {
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
    /// Name of the manifest file in messages.
    pub(crate) file: String,
}

impl Manifest {
    /// Opens a `.jsonl` file, or the `manifest.jsonl` in a folder or a `.zip` archive: a regular file of at
    /// most 4 GiB, with lines of at most 16 MiB.
    ///
    /// # Errors
    /// Returns [`crate::Error::Io`], [`crate::Error::Zip`] or [`crate::Error::Duplicate`] if the file or
    /// archive cannot be read, and [`crate::Error::Line`] for the first invalid line.
    pub fn open(path: impl AsRef<Path>) -> Result<Manifest> {
        Source::lines(path, None)?.manifest()
    }

    /// Name of item `i` in errors: its image, or its line.
    pub fn name(&self, i: usize) -> String {
        match &self.items[i].image {
            Some(image) => self.store.name(image),
            None => format!("{}, line {}", self.file, self.items[i].line),
        }
    }
}
