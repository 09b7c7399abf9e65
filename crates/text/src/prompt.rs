use serde::{Deserialize, Serialize};

use crate::{Error, Result, Tokenizer};

/// The label of a token on which no loss is taken.
pub const IGNORED: i32 = -100;

const SYSTEM: &str = "You are an AI visual assistant and you are seeing a single image. You will receive an \
                      instruction regarding that image. Your goal is to follow the instruction as faithfully as \
                      you can.";
const TEMPLATE: &str = "{system}\n\nInstruction: {instruction}\nOutput:";

/// How an instruction becomes a prompt. The default is the wording of the released models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromptTemplate {
    /// Takes the place of `{system}` in the template.
    pub system: String,
    /// The prompt, with `{instruction}` where the instruction goes.
    pub template: String,
    /// Put before an answer when training: a space, which most vocabularies join to the word after it.
    pub answer_prefix: String,
}

impl Default for PromptTemplate {
    fn default() -> PromptTemplate {
        PromptTemplate { system: SYSTEM.into(), template: TEMPLATE.into(), answer_prefix: " ".into() }
    }
}

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
    /// The prompt for `instruction`, which may itself contain braces.
    ///
    /// # Errors
    /// [`Error::EmptyInstruction`] when there is nothing but white space, [`Error::NoPlaceholder`] when the
    /// template has no `{instruction}`.
    pub fn render(&self, instruction: &str) -> Result<String> {
        if instruction.trim().is_empty() {
            return Err(Error::EmptyInstruction);
        }
        if !self.template.contains("{instruction}") {
            return Err(Error::NoPlaceholder { template: self.template.clone() });
        }
        let around = self.template.split("{instruction}");
        let around: Vec<String> = around.map(|part| part.replace("{system}", &self.system)).collect();
        Ok(around.join(instruction))
    }

    /// The ids to generate an answer from.
    ///
    /// # Errors
    /// As [`PromptTemplate::render`]; [`Error::TooLong`] unless at least one more token fits into `max_context`.
    pub fn encode_prompt(
        &self,
        tokenizer: &Tokenizer,
        instruction: &str,
        max_context: usize,
    ) -> Result<Vec<u32>> {
        let ids = tokenizer.encode(&self.render(instruction)?)?;
        if ids.len() >= max_context {
            return Err(Error::TooLong { len: ids.len(), context: max_context });
        }
        Ok(ids)
    }

    /// The ids to train on. Prompt and answer are tokenized apart, so that the prompt's ids are those that
    /// generation starts from.
    ///
    /// # Errors
    /// As [`PromptTemplate::render`]; [`Error::EmptyAnswer`] when there is nothing but white space.
    pub fn encode_example(&self, tokenizer: &Tokenizer, instruction: &str, answer: &str) -> Result<Example> {
        if answer.trim().is_empty() {
            return Err(Error::EmptyAnswer { instruction: instruction.to_owned() });
        }
        let mut ids = tokenizer.encode(&self.render(instruction)?)?;
        let loss_from = ids.len();
        ids.extend(tokenizer.encode(&format!("{}{answer}", self.answer_prefix))?);
        ids.push(tokenizer.end_token());
        Ok(Example { ids, loss_from })
    }
}
