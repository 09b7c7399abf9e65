use crate::{Result, Tokenizer};

/// Turns ids that come one by one into text as soon as it is certain.
///
/// A character may be spread over several tokens and a token's text may depend on the one before it, so the last
/// few ids are decoded again with each new one, and an unfinished character at their end is held back.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The ids whose text is not all given out, after one that gives them context.
    window: Vec<u32>,
    /// Bytes of the window's text that were given out.
    given: usize,
}

/// What a decoder makes of bytes that form no character, or no whole one yet.
const UNFINISHED: char = char::REPLACEMENT_CHARACTER;

impl<'a> TextStream<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> TextStream<'a> {
        TextStream { tokenizer, window: Vec::new(), given: 0 }
    }

    /// The text that `id` completes, if any.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        self.window.push(id);
        let text = self.tokenizer.decode(&self.window)?;
        let certain = text.strip_suffix(UNFINISHED).unwrap_or(&text);
        let new = certain.get(self.given..).unwrap_or_default().to_owned();
        self.given = self.given.max(certain.len());
        if certain.len() == text.len() {
            self.window.drain(..self.window.len() - 1);
            self.given = self.tokenizer.decode(&self.window)?.len();
        }
        Ok((!new.is_empty()).then_some(new))
    }

    /// What was held back: a character that never became whole, as `U+FFFD`.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<Option<String>> {
        let text = self.tokenizer.decode(&self.window)?;
        let rest = text.get(self.given..).unwrap_or_default();
        Ok((!rest.is_empty()).then(|| rest.to_owned()))
    }
}
