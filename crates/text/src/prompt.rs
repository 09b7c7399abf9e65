//! The prompt template around an instruction, in the wording that the released models were trained with.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const SYSTEM: &str = "You are an AI visual assistant and you are seeing a single image. You will receive an \
                      instruction regarding that image. Your goal is to follow the instruction as faithfully as \
                      you can.";
const TEMPLATE: &str = "{system}\n\nInstruction: {instruction}\nOutput:";
/// Bytes of a prompt: a template may repeat its parts as often as it likes.
const RENDERED: usize = 16 << 20;

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

impl PromptTemplate {
    /// The prompt for `instruction`, which may itself contain braces.
    ///
    /// # Errors
    /// [`Error::EmptyInstruction`] when there is nothing but white space, [`Error::NoPlaceholder`] when the
    /// template has no `{instruction}`, [`Error::PromptTooLong`] from 16 MiB on.
    pub fn render(&self, instruction: &str) -> Result<String> {
        if instruction.trim().is_empty() {
            return Err(Error::EmptyInstruction);
        }
        if !self.template.contains("{instruction}") {
            return Err(Error::NoPlaceholder { template: self.template.clone() });
        }
        let count = |name: &str, text: &str| self.template.matches(name).count().saturating_mul(text.len());
        let inserted = count("{instruction}", instruction).saturating_add(count("{system}", &self.system));
        let bytes = inserted.saturating_add(self.template.len());
        if bytes > RENDERED {
            return Err(Error::PromptTooLong { bytes, limit: RENDERED });
        }
        let around = self.template.split("{instruction}");
        let around: Vec<String> = around.map(|part| part.replace("{system}", &self.system)).collect();
        Ok(around.join(instruction))
    }
}
