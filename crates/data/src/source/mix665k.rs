//! LLaVA-1.5's instruction mix (arXiv 2310.03744, table 7), divided into the data sets that it is made of.
//!
//! No field names the set of a row: folders do, and inside `coco/` the prompt of the first question. The
//! prompt stands only there, so it is removed, and the prompt of the part is added to every drawn question.

use std::collections::HashSet;

use serde::Deserialize;

use super::config::Turns;
use super::conversation::item;
use super::prompt::{Prompt, asks_letter, asks_short, without_prompt};
use super::reader::{Id, ONE, Part, Read, Reader, Record, TWO, Table, parse};
use super::rules::{Rules, key};
use crate::Result;
use crate::index::{fault, scan};
use crate::json_stream::Layout;
use crate::published::Published;

const LLAVA: usize = 0;
const VQA_V2: usize = 1;
const OK_VQA: usize = 2;
const A_OKVQA: usize = 3;
const GQA: usize = 4;
const OCR_VQA: usize = 5;
const TEXTCAPS: usize = 6;

pub(crate) static READER: Reader = Reader {
    tables: &[Table::only(Layout::Array)],
    parts: &[
        Part::new("llava", ONE, Prompt::None),
        Part::new("vqav2", TWO, Prompt::ShortAnswer),
        Part::new("ok-vqa", ONE, Prompt::ShortAnswer),
        // Each question is there once for each order of its choices.
        Part::new("a-okvqa", Turns::All, Prompt::Letter).unique(),
        Part::new("gqa", TWO, Prompt::ShortAnswer),
        Part::new("ocr-vqa", ONE, Prompt::ShortAnswer),
        Part::new("textcaps", ONE, Prompt::Caption).captions(),
    ],
    read,
    ..Reader::USUAL
};

fn read(record: &Record<'_>, rules: &Rules) -> Result<Read, String> {
    let mut item = match item(record)? {
        Ok(item) => item,
        Err(why) => return Ok(Read::LeftOut(why)),
    };
    let image = item.image.as_deref().unwrap_or("");
    if let Some(why) = rules.filtered(image) {
        return Ok(Read::LeftOut(why));
    }
    let first = item.qa.first().map_or("", |(question, _)| question);
    let part = match image.split('/').next().unwrap_or("") {
        "coco" => match coco(image, first, rules) {
            Some(part) => part,
            None => return Ok(Read::LeftOut("RefCOCO")),
        },
        "gqa" => GQA,
        "ocr_vqa" => OCR_VQA,
        "textvqa" => TEXTCAPS,
        "vg" => return Ok(Read::LeftOut("Visual Genome")),
        _ => return Err("`image` is in none of coco/, gqa/, ocr_vqa/, textvqa/ and vg/".into()),
    };
    for (question, _) in &mut item.qa {
        *question = match part {
            // The question is the instruction, with a line of OCR tokens, which Pheye does not use.
            TEXTCAPS => String::new(),
            LLAVA => continue,
            _ => without_prompt(question).to_owned(),
        };
    }
    if part == TEXTCAPS {
        item.caption = item.qa.first().map(|(_, caption)| caption.clone());
    }
    Ok(Read::Item(part, item))
}

/// The part of a row about an image of COCO; `None` for RefCOCO.
fn coco(image: &str, question: &str, rules: &Rules) -> Option<usize> {
    if asks_letter(question) {
        return Some(A_OKVQA);
    }
    if question.contains("short description for this region") || question.contains("bounding box coordinate")
    {
        return None;
    }
    if !asks_short(question) {
        return Some(LLAVA);
    }
    let known = rules.okvqa.as_ref();
    let of_okvqa = known.is_some_and(|asked| asked.contains(&question_key(image, without_prompt(question))));
    Some(if of_okvqa { OK_VQA } else { VQA_V2 })
}

/// The key of a question by the number of its image, which is the end of the image's name.
fn question_key(image: &str, question: &str) -> u64 {
    let name = image.rsplit('/').next().unwrap_or("");
    let stem = name.split('.').next().unwrap_or("");
    let digits = stem.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or("");
    key(&[digits.trim_start_matches('0'), question.trim()])
}

#[derive(Deserialize)]
struct Asked {
    image_id: Id,
    question: String,
}

/// The questions of OK-VQA's question file.
pub(crate) fn okvqa(file: &Published) -> Result<HashSet<u64>> {
    let (layout, mut asked) = (Layout::ArrayIn("questions"), HashSet::new());
    scan(file, layout, |block| {
        for found in block.rows {
            let row: Result<Asked, String> = parse(&block.bytes[found.range.clone()]);
            let row = row.map_err(|why| fault(file, layout, found.number, why))?;
            asked.insert(question_key(&row.image_id.0, &row.question));
        }
        Ok(())
    })?;
    Ok(asked)
}
