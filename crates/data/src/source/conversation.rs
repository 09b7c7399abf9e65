//! Conversations about images: ShareGPT4V, LVIS-Instruct4V, SVIT, LLaVA, MoE-LLaVA's files, and LLaVAR.

use std::borrow::Cow;

use serde::Deserialize;

use super::prompt::Prompt;
use super::reader::{ONE, Part, Read, Reader, Record, Table};
use super::rules::Rules;
use crate::Item;
use crate::json_stream::Layout;

const TABLES: &[Table] = &[Table { key: "path", layout: Layout::Array, id: None }];

pub(crate) static CONVERSATION: Reader =
    Reader { tables: TABLES, parts: &[Part::new("conversation", ONE, Prompt::None)], read, ..Reader::USUAL };

/// The file has LLaVA's own conversations again; names of LLaVAR's images begin with 1000.
pub(crate) static LLAVAR: Reader = Reader {
    tables: TABLES,
    parts: &[Part::new("llavar", ONE, Prompt::None)],
    include: &["1000"],
    read,
    ..Reader::USUAL
};

/// A row.
#[derive(Deserialize)]
pub(crate) struct Conversation<'a> {
    #[serde(borrow, default)]
    image: Option<Images<'a>>,
    #[serde(borrow)]
    conversations: Vec<Said<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the name of an image, or an array of names")]
enum Images<'a> {
    One(#[serde(borrow)] Cow<'a, str>),
    Several(#[serde(borrow)] Vec<Cow<'a, str>>),
}

/// What one side says.
#[derive(Deserialize)]
pub(super) struct Said<'a> {
    #[serde(borrow)]
    from: Cow<'a, str>,
    // SVIT calls it content.
    #[serde(borrow, alias = "content")]
    value: Cow<'a, str>,
}

fn read(record: &Record<'_>, _: &Rules) -> Result<Read, String> {
    Ok(match item(record)? {
        Ok(item) => Read::Item(0, item),
        Err(why) => Read::LeftOut(why),
    })
}

/// The item of a row, or why it is left out.
pub(crate) fn item(record: &Record<'_>) -> Result<Result<Item, &'static str>, String> {
    let row: Conversation<'_> = record.parse(0)?;
    let image = match row.image {
        None => return Ok(Err("without an image (text only)")),
        Some(Images::One(image)) => image.into_owned(),
        Some(Images::Several(mut images)) => match (images.pop(), images.is_empty()) {
            (Some(image), true) => image.into_owned(),
            (Some(_), false) => return Ok(Err("several images")),
            (None, _) => return Ok(Err("without an image (text only)")),
        },
    };
    let qa = turns(&row.conversations)?;
    if qa.is_empty() {
        return Ok(Err("no question that is answered"));
    }
    Ok(Ok(Item { image: Some(image), qa, ..Item::default() }))
}

/// Each question with the answer that follows it. The mark `<image>` is removed: Pheye has no such token.
pub(super) fn turns(said: &[Said<'_>]) -> Result<Vec<(String, String)>, String> {
    let (mut turns, mut asked) = (Vec::new(), None);
    for (i, Said { from, value }) in said.iter().enumerate() {
        match from.as_ref() {
            "human" | "user" => asked = Some(value.replace("<image>", "").trim().to_owned()),
            "gpt" | "assistant" => {
                turns.extend(asked.take().map(|question| (question, value.trim().to_owned())));
            }
            other => return Err(format!("`conversations[{i}].from` is `{other}`, neither human nor gpt")),
        }
    }
    Ok(turns)
}
