//! What a data set holds: JSON lines, one picture or one text each.
//!
//! ```json
//! {"image": "cats/1.jpg", "instruction": "How many cats?", "output": "two"}
//! {"image": "cats/2.jpg", "qa": [["how many?", "two"], ["what colour?", "grey"]], "caption": "two grey cats"}
//! {"text": "Once upon a time."}
//! ```
//! Paths are relative to the manifest. Other keys are ignored.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, Store};

/// What of a data set is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// Pictures, and questions about them with their answers.
    Questions,
    /// Pictures and their captions.
    Captions,
    /// No pictures: texts, captions, and questions with their answers.
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
    /// Name of the picture in the store.
    pub image: Option<String>,
    /// Questions (instructions) with their answers (outputs).
    pub qa: Vec<(String, String)>,
    /// What the picture shows.
    pub caption: Option<String>,
    /// Text of its own.
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
    /// Whether there is anything of `content` in it.
    pub fn has(&self, content: Content) -> bool {
        match content {
            Content::Questions => self.image.is_some() && !self.qa.is_empty(),
            Content::Captions => self.image.is_some() && self.caption.is_some(),
            Content::Text => self.text.is_some() || self.caption.is_some() || !self.qa.is_empty(),
        }
    }

    fn parse(json: &[u8], line: usize) -> Result<Item, String> {
        let mut l: Line =
            serde_json::from_slice(json).map_err(|e| e.to_string().replace(" at line 1", ","))?;
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

/// A data set.
#[derive(Debug)]
pub struct Manifest {
    /// The file or folder it was opened as.
    pub path: PathBuf,
    /// Where its pictures are.
    pub store: Store,
    /// Its lines.
    pub items: Vec<Item>,
}

impl Manifest {
    /// Opens a `.jsonl` file, or the `manifest.jsonl` in a folder or a `.zip`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Zip`], or [`Error::Line`] for the first line that cannot be used.
    pub fn open(path: impl AsRef<Path>) -> Result<Manifest> {
        let path = path.as_ref();
        let is_zip = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("zip"));
        let (store, file) = if is_zip || path.is_dir() {
            (Store::open(path)?, "manifest.jsonl".into())
        } else {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            (Store::Folder(path.parent().unwrap_or(Path::new("")).into()), file)
        };
        let bytes = store.read(&file)?;
        let mut items = Vec::new();
        for (i, json) in bytes.split(|b| *b == b'\n').enumerate() {
            if !json.trim_ascii().is_empty() {
                let fault = |message| Error::Line { name: store.name(&file), line: i + 1, message };
                items.push(Item::parse(json, i + 1).map_err(fault)?);
            }
        }
        Ok(Manifest { path: path.into(), store, items })
    }

    /// Item `i` as errors call it: its picture, or its line.
    pub fn name(&self, i: usize) -> String {
        let item = &self.items[i];
        match &item.image {
            Some(image) => self.store.name(image),
            None => format!("{}, line {}", self.path.display(), item.line),
        }
    }
}
