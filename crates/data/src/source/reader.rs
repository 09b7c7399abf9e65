//! What a reader of a published form is: a table of facts, and a function from a row to an [`Item`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, de};

use super::config::Turns;
use super::prompt::Prompt;
use super::rules::Rules;
use crate::Item;
use crate::json_stream::Layout;
use crate::manifest::without_lone_surrogates;

/// How one published form is read.
pub(crate) struct Reader {
    /// To be increased when the rows of an index would differ, because indices are kept on disk.
    pub(crate) version: u32,
    /// The published files.
    pub(crate) tables: &'static [Table],
    /// The data sets in it, with the paper's defaults; rows name theirs by its number.
    pub(crate) parts: &'static [Part],
    /// How images are called, if rows have ids of images instead of names. `{split}` is that of COCO in the
    /// name of the published file.
    pub(crate) image_name: Option<&'static str>,
    /// The default of `include`.
    pub(crate) include: &'static [&'static str],
    /// Reads a row.
    pub(crate) read: fn(&Record<'_>, &Rules) -> Result<Read, String>,
}

impl Reader {
    /// What most readers have in common: version 1, and rows that name their images.
    pub(crate) const USUAL: Reader =
        Reader { version: 1, tables: &[], parts: &[], image_name: None, include: &[], read: nothing };
}

/// A source without rows of JSON reads none.
fn nothing(_: &Record<'_>, _: &Rules) -> Result<Read, String> {
    Ok(Read::LeftOut("no row"))
}

/// A published file.
pub(crate) struct Table {
    /// Its key in a [`super::SourceConfig`].
    pub(crate) key: &'static str,
    /// Where its rows are.
    pub(crate) layout: Layout,
    /// Of a row, the id that it shares with the rows of the other file.
    pub(crate) id: Option<IdOf>,
}

impl Table {
    /// The only published file of a format.
    pub(crate) const fn only(layout: Layout) -> Table {
        Table { key: "path", layout, id: None }
    }
}

/// The id in a row, or why there is none.
pub(crate) type IdOf = fn(&[u8]) -> Result<String, String>;

/// A part: its defaults, or its rules in a source.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) turns: Turns,
    pub(crate) prompt: Prompt,
    /// Whether each question about an image is used once.
    pub(crate) unique: bool,
    /// Whether the rows of an image are one item.
    pub(crate) grouped: bool,
    /// Whether the answers are captions, without questions.
    pub(crate) captions: bool,
}

impl Part {
    /// A part with questions, whose items are its rows.
    pub(crate) const fn new(name: &'static str, turns: Turns, prompt: Prompt) -> Part {
        Part { name, turns, prompt, unique: false, grouped: false, captions: false }
    }

    /// The rows of an image are one item.
    pub(crate) const fn grouped(mut self) -> Part {
        self.grouped = true;
        self
    }

    /// Each question about an image is used once.
    pub(crate) const fn unique(mut self) -> Part {
        self.unique = true;
        self.grouped()
    }

    /// The answers are captions, without questions.
    pub(crate) const fn captions(mut self) -> Part {
        self.captions = true;
        self
    }
}

/// One turn.
pub(crate) const ONE: Turns = Turns::Some(1);
/// Two turns.
pub(crate) const TWO: Turns = Turns::Some(2);

/// What a row says.
pub(crate) enum Read {
    /// An item of the part of this number.
    Item(usize, Item),
    /// It is not used, and why.
    LeftOut(&'static str),
}

/// The texts of a row, one from each published file. A row that is a member of an object has braces around it.
pub(crate) struct Record<'a>(pub(crate) &'a [Cow<'a, [u8]>]);

impl<'a> Record<'a> {
    /// Parses the part of the row in the file number `table`.
    pub(crate) fn parse<T: Deserialize<'a>>(&'a self, table: usize) -> Result<T, String> {
        parse(&self.0[table])
    }

    /// Parses a member of an object: its key and value.
    pub(crate) fn member<T: Deserialize<'a>>(&'a self) -> Result<(String, T), String> {
        let map: BTreeMap<String, T> = self.parse(0)?;
        map.into_iter().next().ok_or_else(|| "no member".to_owned())
    }
}

/// Parses JSON; an error names the field.
pub(crate) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    // The path of keys is followed only for the message, because that takes time.
    if let Ok(value) = serde_json::from_slice(json) {
        return Ok(value);
    }
    let mut from = serde_json::Deserializer::from_slice(json);
    let error = match serde_path_to_error::deserialize::<_, T>(&mut from) {
        Ok(_) => return Err("more than one value".into()),
        Err(error) => error,
    };
    let path = error.path().to_string();
    let why = error.into_inner().to_string();
    let why = why.split(" at line ").next().unwrap_or_default();
    Err(if path == "." { why.into() } else { format!("`{path}`: {why}") })
}

/// Reads a row with `reader`; an escaped lone surrogate becomes U+FFFD.
pub(crate) fn read(reader: &Reader, texts: &[Cow<'_, [u8]>], rules: &Rules) -> Result<Read, String> {
    let why = match (reader.read)(&Record(texts), rules) {
        Ok(read) => return Ok(read),
        Err(why) => why,
    };
    let clean = |text: &Cow<'_, [u8]>| without_lone_surrogates(text);
    if texts.iter().all(|text| clean(text).is_none()) {
        return Err(why);
    }
    let texts: Vec<Cow<'_, [u8]>> =
        texts.iter().map(|text| clean(text).map_or_else(|| text.clone(), Cow::Owned)).collect();
    (reader.read)(&Record(&texts), rules).map_err(|_| why)
}

/// An id, a string or an integer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Id, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string or an integer")
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }

            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }

            fn visit_str<E: de::Error>(self, id: &str) -> Result<Id, E> {
                Ok(Id(id.to_owned()))
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// The question without its choices, which tells whether two questions about an image are the same: LLaVA's
/// mix has each question of A-OKVQA with its choices in several orders.
pub(crate) fn without_choices(question: &str) -> &str {
    question.split("\nA. ").next().unwrap_or(question)
}

/// The most frequent text, the first of several.
pub(crate) fn most_frequent<S: AsRef<str>>(texts: &[S]) -> Option<&str> {
    let count = |text: &str| texts.iter().filter(|other| other.as_ref() == text).count();
    let mut best: Option<(&str, usize)> = None;
    for text in texts.iter().map(S::as_ref) {
        let n = count(text);
        if best.is_none_or(|(_, most)| n > most) {
            best = Some((text, n));
        }
    }
    best.map(|(text, _)| text)
}

/// An item with one question.
pub(crate) fn one(image: String, question: &str, answer: &str) -> Item {
    let qa = vec![(question.trim().to_owned(), answer.trim().to_owned())];
    Item { image: Some(image), qa, ..Item::default() }
}
