//! A-OKVQA: questions with four choices.

use std::borrow::Cow;

use serde::Deserialize;

use super::config::Turns;
use super::prompt::Prompt;
use super::reader::{Id, Part, Read, Reader, Record, Table, one};
use super::rules::Rules;
use crate::json_stream::Layout;

pub(crate) static READER: Reader = Reader {
    tables: &[Table::only(Layout::Array)],
    parts: &[Part::new("a-okvqa", Turns::All, Prompt::Letter).unique()],
    image_name: Some("{id:012}.jpg"),
    read,
    ..Reader::USUAL
};

#[derive(Deserialize)]
struct Row<'a> {
    image_id: Id,
    #[serde(borrow)]
    question: Cow<'a, str>,
    #[serde(borrow)]
    choices: Vec<Cow<'a, str>>,
    /// The test split has none.
    correct_choice_idx: Option<usize>,
}

fn read(record: &Record<'_>, rules: &Rules) -> Result<Read, String> {
    let row: Row<'_> = record.parse(0)?;
    let Some(correct) = row.correct_choice_idx else { return Ok(Read::LeftOut("without an answer")) };
    let Some(answer) = row.choices.get(correct).filter(|_| row.choices.len() <= 26) else {
        return Err(format!("`correct_choice_idx` is {correct}, of {} `choices`", row.choices.len()));
    };
    let image = rules.image(&row.image_id.0);
    if rules.parts[0].part.prompt != Prompt::Letter {
        return Ok(Read::Item(0, one(image, &row.question, answer)));
    }
    let mut question = row.question.trim().to_owned();
    for (letter, choice) in ('A'..='Z').zip(&row.choices) {
        question.push_str(&format!("\n{letter}. {choice}"));
    }
    let letter = char::from(b'A' + correct as u8);
    Ok(Read::Item(0, one(image, &question, &letter.to_string())))
}
