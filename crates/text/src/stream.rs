//! Text from ids that come one by one, given out as soon as no later id can change it.

use tokenizers::Decoder;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::strip::Strip;

use crate::{Result, Tokenizer};

/// Turns ids that come one by one into text. The pieces and the end joined are what [`Tokenizer::decode`] makes of all
/// ids, and no piece is ever taken back.
///
/// What a decoder does with a token may depend on tokens before and behind it: a character may be spread over several,
/// bytes that stand alone become `U+FFFD` all together when one of them is wrong. So the steps of the decoder are gone
/// through one by one, and what a step may still change is held back. If a step may change anything, such as a
/// replacement in the joined text, all text comes at the end.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    given: String,
    plan: Plan<'a>,
}

/// What is known of a decoder.
struct Plan<'a> {
    /// Whether a text before the end can be certain.
    certain: bool,
    /// Steps that make tokens of tokens.
    steps: Vec<Step<'a>>,
    /// Whether characters may be spread over the tokens that come of the steps.
    bytes: Option<&'a DecoderWrapper>,
    /// Tokens behind the last that ended with a character.
    open: Vec<String>,
    joined: String,
    /// What is stripped off the joined text.
    strips: Vec<&'a Strip>,
}

/// A step and what it remembers.
enum Step<'a> {
    /// Each token by itself.
    Each(&'a DecoderWrapper),
    /// Each token by itself, but the first in another way.
    Later(&'a DecoderWrapper, bool),
    /// Each token by itself, but one that repeats the last is left out.
    Unlike(&'a DecoderWrapper, Option<String>),
    /// Each token by itself, but the last of all in another way.
    Earlier(&'a DecoderWrapper, Option<String>),
    /// Tokens for bytes are taken together.
    Bytes(&'a DecoderWrapper, Vec<String>),
    /// A space before each token but the first.
    Spaced(bool),
}

impl<'a> TextStream<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> TextStream<'a> {
        let plan = Plan::new(tokenizer.inner.get_decoder());
        TextStream { tokenizer, ids: Vec::new(), given: String::new(), plan }
    }

    /// The text that is certain with `id`, if any.
    ///
    /// # Errors
    /// When [`Tokenizer::decode`] fails.
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

    /// What was held back: a character that never became whole, as `U+FFFD`.
    ///
    /// # Errors
    /// When [`Tokenizer::decode`] fails.
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

    /// Adds a decoder behind those that are there; `one` says whether they leave a single token.
    fn add(&mut self, decoder: &'a DecoderWrapper, one: &mut bool) {
        use DecoderWrapper as D;
        match decoder {
            D::Sequence(all) => all.get_decoders().iter().for_each(|decoder| self.add(decoder, one)),
            D::Fuse(_) => *one = true,
            D::Strip(strip) if *one => self.strips.push(strip),
            // The joined text as a whole may be a token for a byte, or hold what is replaced up to its end.
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

/// `text` after as many `cut`s as it has, but no more than `times`.
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
    /// Gives the tokens that are certain with `token` to `made`.
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

/// Whether `token` has the form `<0xFF>` that stands for a byte.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}
