//! Prompts in tokens: to generate from, and to train on.

use crate::{Error, PromptTemplate, Result, Tokenizer};

/// The label of a token on which no loss is taken.
pub const IGNORED: i32 = -100;

/// A prompt with its answer, to train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Prompt, answer, end token.
    pub ids: Vec<u32>,
    /// The first token of the answer: loss is taken on it and on all that follow.
    pub loss_from: usize,
}

impl Example {
    /// The ids with [`IGNORED`] in place of the prompt's.
    pub fn labels(&self) -> Vec<i32> {
        let label = |(i, &id): (usize, &u32)| if i < self.loss_from { IGNORED } else { id as i32 };
        self.ids.iter().enumerate().map(label).collect()
    }
}

impl PromptTemplate {
    /// The ids to generate an answer from.
    ///
    /// # Errors
    /// As [`PromptTemplate::render`]; [`Error::TooLong`] unless at least one more token fits into `max_context`, and
    /// [`Error::TextTooLong`] for what exceeds it by far.
    pub fn encode_prompt(
        &self,
        tokenizer: &Tokenizer,
        instruction: &str,
        max_context: usize,
    ) -> Result<Vec<u32>> {
        let ids = tokenizer.encode_within(&self.render(instruction)?, max_context)?;
        if ids.len() >= max_context {
            return Err(Error::TooLong { len: ids.len(), context: max_context });
        }
        Ok(ids)
    }

    /// The ids to train on. Prompt and answer are tokenized apart, so that the prompt's ids are those that
    /// generation starts from. They are meant to be at most `max_tokens` together; the caller looks at their number.
    ///
    /// # Errors
    /// As [`PromptTemplate::render`]; [`Error::EmptyAnswer`] when there is nothing but white space, and
    /// [`Error::TextTooLong`] for what exceeds `max_tokens` by far.
    pub fn encode_example(
        &self,
        tokenizer: &Tokenizer,
        instruction: &str,
        answer: &str,
        max_tokens: usize,
    ) -> Result<Example> {
        if answer.trim().is_empty() {
            return Err(Error::EmptyAnswer { instruction: instruction.to_owned() });
        }
        let mut ids = tokenizer.encode_within(&self.render(instruction)?, max_tokens)?;
        let loss_from = ids.len();
        ids.extend(tokenizer.encode_within(&format!("{}{answer}", self.answer_prefix), max_tokens)?);
        ids.push(tokenizer.end_token());
        Ok(Example { ids, loss_from })
    }
}
