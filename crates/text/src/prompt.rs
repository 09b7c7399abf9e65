//! The prompt template around an instruction; the default is that of the released models.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const SYSTEM: &str = "You are an AI visual assistant and you are seeing a single image. You will receive an \
                      instruction regarding that image. Your goal is to follow the instruction as faithfully as \
                      you can.";
const TEMPLATE: &str = "{system}\n\nInstruction: {instruction}\nOutput:";
/// Maximum size of a prompt in bytes, because a template may repeat its placeholders.
const RENDERED: usize = 16 << 20;

/// How an instruction becomes a prompt. The default is the prompt of the released models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromptTemplate {
    /// The text for `{system}` in the template.
    pub system: String,
    /// The prompt, with `{instruction}` as placeholder for the instruction.
    pub template: String,
    /// Put before an answer in training: a space, which most vocabularies join with the following word to one
    /// token.
    pub answer_prefix: String,
}

impl Default for PromptTemplate {
    fn default() -> PromptTemplate {
        PromptTemplate { system: SYSTEM.into(), template: TEMPLATE.into(), answer_prefix: " ".into() }
    }
}

impl PromptTemplate {
    /// The prompt for `instruction`. Braces in the instruction are not interpreted.
    ///
    /// # Errors
    /// Returns [`Error::EmptyInstruction`] if the instruction is only white space, [`Error::NoPlaceholder`]
    /// if the template has no `{instruction}`, and [`Error::PromptTooLong`] if the prompt exceeds 16 MiB.
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
