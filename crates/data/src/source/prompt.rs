//! What stands after a question, or in its place.

use serde::{Deserialize, Serialize};

use crate::random::{Purpose, below, draw};

/// What is added to the question, or stands in its place.
///
/// The sentences are those of LLaVA-1.5 (arXiv 2310.03744, table 7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Prompt {
    /// Nothing.
    None,
    /// "Answer the question using a single word or phrase." after the question.
    ShortAnswer,
    /// "Answer with the option's letter from the given choices directly." after the question and its choices.
    Letter,
    /// "Provide a one-sentence caption for the provided image." instead of the question.
    Caption,
    /// One of ten instructions to describe the image in detail, drawn each time, instead of the question.
    CaptionsTen,
    /// This text after the question.
    Append(String),
    /// This text instead of the question.
    Only(String),
}

const SHORT_ANSWER: &str = "Answer the question using a single word or phrase.";
const LETTER: &str = "Answer with the option's letter from the given choices directly.";
const CAPTION: &str = "Provide a one-sentence caption for the provided image.";

/// The instructions of [`Prompt::CaptionsTen`], written for this project.
const CAPTIONS_TEN: [&str; 10] = [
    "Write a thorough description of this picture, from its main subject to its background.",
    "Tell me everything that can be seen here, including small details.",
    "What does this image show? Answer with a full paragraph.",
    "Describe the scene, the objects in it and how they are arranged.",
    "Give a detailed account of the picture for someone who cannot see it.",
    "Explain what is going on in this photo and mention colours, positions and any text.",
    "Compose a rich caption that covers each notable part of the image.",
    "Go through the image carefully and report what you notice.",
    "Provide a long and precise description of what is depicted.",
    "Describe the contents, the setting and the mood of this image.",
];

impl Prompt {
    /// Whether it is an instruction of its own, without the question.
    pub(crate) fn stands_alone(&self) -> bool {
        !matches!(self, Prompt::None | Prompt::ShortAnswer | Prompt::Letter)
    }

    /// Whether it takes the place of the question.
    pub(crate) fn replaces(&self) -> bool {
        matches!(self, Prompt::Caption | Prompt::CaptionsTen | Prompt::Only(_))
    }

    /// The question with the prompt, for item `id` in pass `pass`.
    pub(crate) fn apply(&self, question: String, seed: u64, id: u32, pass: u64) -> String {
        let after = match self {
            Prompt::None => return question,
            Prompt::ShortAnswer => SHORT_ANSWER,
            Prompt::Letter => LETTER,
            Prompt::Caption => return CAPTION.into(),
            Prompt::CaptionsTen => {
                let [word, ..] = draw(seed, Purpose::Prompt, id, pass);
                return CAPTIONS_TEN[below(word, CAPTIONS_TEN.len() as u32) as usize].into();
            }
            Prompt::Append(text) => text,
            Prompt::Only(text) => return text.clone(),
        };
        if question.is_empty() { after.into() } else { format!("{question}\n{after}") }
    }
}

/// `question` without the prompt of a published file after it.
pub(crate) fn without_prompt(question: &str) -> &str {
    let mut question = question.trim();
    for prompt in [SHORT_ANSWER, LETTER, CAPTION] {
        question = question.strip_suffix(prompt).unwrap_or(question).trim_end();
    }
    question
}

/// Whether the question ends with the prompt for a letter.
pub(crate) fn asks_letter(question: &str) -> bool {
    question.contains("letter from the given choices")
}

/// Whether the question has the prompt for a short answer.
pub(crate) fn asks_short(question: &str) -> bool {
    question.contains("single word or phrase")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_follow_the_question_or_replace_it() {
        let apply = |prompt: Prompt, question: &str| prompt.apply(question.into(), 1, 2, 3);
        assert_eq!(apply(Prompt::None, "Why?"), "Why?");
        assert_eq!(apply(Prompt::ShortAnswer, "Why?"), format!("Why?\n{SHORT_ANSWER}"));
        assert_eq!(apply(Prompt::Letter, "Why?\nA. x"), format!("Why?\nA. x\n{LETTER}"));
        assert_eq!(apply(Prompt::Caption, "Why?"), CAPTION);
        assert_eq!(apply(Prompt::Append("Be brief.".into()), "Why?"), "Why?\nBe brief.");
        assert_eq!(apply(Prompt::Append("Be brief.".into()), ""), "Be brief.");
        for prompt in [SHORT_ANSWER, LETTER, CAPTION] {
            assert_eq!(without_prompt(&format!(" Why?\n{prompt}")), "Why?");
        }
    }

    #[test]
    fn each_of_ten_instructions_is_drawn() {
        let drawn = |pass| Prompt::CaptionsTen.apply(String::new(), 7, 1, pass);
        let all: std::collections::BTreeSet<String> = (0..200).map(drawn).collect();
        assert_eq!(all.len(), 10);
        assert_eq!(drawn(5), drawn(5));
    }
}
