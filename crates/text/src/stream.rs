//! Decodes a stream of token ids, and returns text as soon as no later id can change it.

use tokenizers::Decoder;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::strip::Strip;

use crate::{Result, Tokenizer};

/// Decodes token ids that arrive one by one. All returned pieces together equal the result of
/// [`Tokenizer::decode`] for all ids.
///
/// How a decoder treats a token may depend on the tokens before and after it: a character may be split over
/// several tokens, and a sequence of byte tokens becomes `U+FFFD` completely if one of its bytes is invalid.
/// Therefore each step of the decoder is applied incrementally, and text that a step may still change is held
/// back. If a step may change any text, such as a replacement in the joined text, all text is returned by
/// [`TextStream::finish`].
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    given: String,
    plan: Plan<'a>,
}

/// The steps of a decoder, with the state of the stream.
struct Plan<'a> {
    /// Whether any text can be returned before the end.
    certain: bool,
    /// The steps that map tokens to tokens.
    steps: Vec<Step<'a>>,
    /// The `ByteLevel` decoder, if there is one: a character may then be split over several tokens.
    bytes: Option<&'a DecoderWrapper>,
    /// The tokens after the last one that ended with a complete character.
    open: Vec<String>,
    joined: String,
    /// Decoders that strip characters off the joined text.
    strips: Vec<&'a Strip>,
}

/// A step that maps tokens to tokens, with its state.
enum Step<'a> {
    /// Decodes each token independently.
    Each(&'a DecoderWrapper),
    /// Decodes each token independently, but the first one differently. The flag is set after the first
    /// token.
    Later(&'a DecoderWrapper, bool),
    /// Decodes each token independently and drops a token that equals its predecessor.
    Unlike(&'a DecoderWrapper, Option<String>),
    /// Decodes each token independently, but the last of all differently; holds one token back.
    Earlier(&'a DecoderWrapper, Option<String>),
    /// Decodes consecutive byte tokens together.
    Bytes(&'a DecoderWrapper, Vec<String>),
    /// Puts a space before each token but the first.
    Spaced(bool),
}

impl<'a> TextStream<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> TextStream<'a> {
        let plan = Plan::new(tokenizer.inner.get_decoder());
        TextStream { tokenizer, ids: Vec::new(), given: String::new(), plan }
    }

    /// Adds `id` and returns the text that has become certain, if any.
    ///
    /// # Errors
    /// Returns [`crate::Error::Tokenize`] if the decoder fails.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        self.ids.push(id);
        if !self.plan.certain {
            return Ok(None);
        }
        let Some(token) = self.tokenizer.token(id) else { return Ok(None) };
        let plan = &mut self.plan;
        self.tokenizer.library(|| plan.push(token))?;
        let certain = self.plan.text();
        let new = certain.get(self.given.len()..).unwrap_or_default().to_owned();
        self.given.push_str(&new);
        Ok((!new.is_empty()).then_some(new))
    }

    /// The text that was held back; an incomplete character becomes `U+FFFD`.
    ///
    /// # Errors
    /// Returns [`crate::Error::Tokenize`] if the decoder fails.
    pub fn finish(self) -> Result<Option<String>> {
        let text = self.tokenizer.decode(&self.ids)?;
        let Some(rest) = text.strip_prefix(&self.given) else {
            return Err(self.tokenizer.failed("the decoder changes text that was certain".to_owned()));
        };
        Ok((!rest.is_empty()).then(|| rest.to_owned()))
    }
}

impl<'a> Plan<'a> {
    fn new(decoder: Option<&'a DecoderWrapper>) -> Plan<'a> {
        let (steps, open) = (Vec::new(), Vec::new());
        let (joined, strips) = (String::new(), Vec::new());
        let mut plan = Plan { certain: true, steps, bytes: None, open, joined, strips };
        match decoder {
            Some(decoder) => plan.add(decoder, &mut false),
            None => plan.steps.push(Step::Spaced(false)),
        }
        plan
    }

    /// Appends the steps of `decoder`. `one` says whether the steps so far join all tokens into one text.
    fn add(&mut self, decoder: &'a DecoderWrapper, one: &mut bool) {
        use DecoderWrapper as D;
        match decoder {
            D::Sequence(all) => all.get_decoders().iter().for_each(|decoder| self.add(decoder, one)),
            D::Fuse(_) => *one = true,
            D::Strip(strip) if *one => self.strips.push(strip),
            // On the joined text, this step may change any part: the text may be one byte token, or a
            // replaced string may end later.
            _ if *one => self.certain = false,
            D::ByteLevel(_) => (*one, self.bytes) = (true, Some(decoder)),
            D::Replace(_) | D::Strip(_) => self.steps.push(Step::Each(decoder)),
            D::Metaspace(_) | D::WordPiece(_) => self.steps.push(Step::Later(decoder, false)),
            D::CTC(_) => self.steps.push(Step::Unlike(decoder, None)),
            D::BPE(_) => self.steps.push(Step::Earlier(decoder, None)),
            D::ByteFallback(_) => self.steps.push(Step::Bytes(decoder, Vec::new())),
        }
    }

    fn push(&mut self, token: String) -> tokenizers::Result<()> {
        let mut tokens = vec![token];
        for step in &mut self.steps {
            let mut made = Vec::new();
            for token in tokens {
                step.push(token, &mut made)?;
            }
            tokens = made;
        }
        let Some(decoder) = self.bytes else {
            self.joined.extend(tokens);
            return Ok(());
        };
        self.open.extend(tokens);
        let text = decoder.decode(self.open.clone())?;
        if !text.ends_with(char::REPLACEMENT_CHARACTER) {
            self.joined.push_str(&text);
            self.open.clear();
        }
        Ok(())
    }

    /// The text that is certain.
    fn text(&self) -> &str {
        let mut text = self.joined.as_str();
        for strip in &self.strips {
            text = up_to(text, strip.start, |text| text.strip_prefix(strip.content));
            text = up_to(text, strip.stop, |text| text.strip_suffix(strip.content));
        }
        text
    }
}

/// Applies `cut` to `text` until it returns `None`, at most `times` times.
fn up_to(mut text: &str, times: usize, cut: impl Fn(&str) -> Option<&str>) -> &str {
    for _ in 0..times {
        match cut(text) {
            Some(rest) => text = rest,
            None => break,
        }
    }
    text
}

impl Step<'_> {
    /// Appends the tokens that become certain with `token` to `made`.
    fn push(&mut self, token: String, made: &mut Vec<String>) -> tokenizers::Result<()> {
        match self {
            Step::Each(decoder) => made.extend(decoder.decode_chain(vec![token])?),
            Step::Later(decoder, later) => {
                let first = later.then(|| "first".to_owned());
                let tokens = decoder.decode_chain(first.into_iter().chain([token]).collect())?;
                made.extend(tokens.into_iter().last());
                *later = true;
            }
            Step::Unlike(decoder, last) => {
                if last.as_ref() != Some(&token) {
                    made.extend(decoder.decode_chain(vec![token.clone()])?);
                    *last = Some(token);
                }
            }
            Step::Earlier(decoder, last) => {
                if let Some(earlier) = last.replace(token) {
                    made.extend(decoder.decode_chain(vec![earlier, String::new()])?.into_iter().next());
                }
            }
            Step::Bytes(decoder, bytes) => {
                let ends = !is_byte(&token);
                bytes.push(token);
                if ends {
                    made.extend(decoder.decode_chain(std::mem::take(bytes))?);
                }
            }
            Step::Spaced(later) => {
                made.push(if *later { format!(" {token}") } else { token });
                *later = true;
            }
        }
        Ok(())
    }
}

/// Whether `token` is a byte token such as `<0xFF>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}
