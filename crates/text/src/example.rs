//! Tokenized prompts, for generation and for training.

use crate::{Error, PromptTemplate, Result, Tokenizer};

/// The label of a token that is not a target (`ignore_index` in PyTorch).
pub const IGNORED: i32 = -100;

/// A tokenized prompt with its answer, for training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The ids of prompt, answer and end token.
    pub ids: Vec<u32>,
    /// Index of the first token of the answer: it and all following tokens are targets.
    pub loss_from: usize,
}

impl Example {
    /// The ids as labels, with [`IGNORED`] for the tokens of the prompt.
    pub fn labels(&self) -> Vec<i32> {
        let label = |(i, &id): (usize, &u32)| if i < self.loss_from { IGNORED } else { id as i32 };
        self.ids.iter().enumerate().map(label).collect()
    }
}

impl PromptTemplate {
    /// The ids of the prompt, for generation.
    ///
    /// # Errors
    /// Returns the errors of [`PromptTemplate::render`] and [`Tokenizer::encode_within`], and
    /// [`Error::TooLong`] unless at least one more token fits into `max_context`.
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

    /// The ids for training. Prompt and answer are tokenized separately, so that the ids of the prompt are
    /// the same as for generation. `max_tokens` is only an estimate for rejecting texts that are far too
    /// long; the caller checks the exact number of tokens.
    ///
    /// # Errors
    /// Returns the errors of [`PromptTemplate::render`] and [`Tokenizer::encode_within`], and
    /// [`Error::EmptyAnswer`] if the answer is only white space.
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
