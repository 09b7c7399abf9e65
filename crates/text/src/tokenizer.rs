//! Any `tokenizer.json`, read by the library of its format, which is kept from panicking and from growing without bound.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use pheye_files::{CONFIG_LIMIT, Kind, caught};
use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::{Decoder, NormalizedString, Normalizer};

use crate::inspect::{FILE_LIMIT, Facts, Fault, inspect};
use crate::{Error, Result, TextStream};

/// The end token of Phi and of most models that have no config to say otherwise.
const DEFAULT_END: &str = "<|endoftext|>";
/// Bytes of a text that are always tokenized, and that are the most at once: the library takes 600 bytes for each.
const TEXTS: std::ops::RangeInclusive<usize> = 16 << 10..=1 << 20;
/// Bytes that are normalised at once to see how long a text gets.
const PIECE: usize = 64;

/// Any `tokenizer.json`.
#[derive(Clone)]
pub struct Tokenizer {
    pub(crate) inner: tokenizers::Tokenizer,
    path: PathBuf,
    end: u32,
    largest: u32,
    facts: Facts,
}

impl Tokenizer {
    /// Reads `path`, a `tokenizer.json` of at most 64 MiB or a folder that holds one. The end token is `end` if given, else
    /// the `eos_token` of the `tokenizer_config.json` beside it, else `<|endoftext|>`.
    ///
    /// # Errors
    /// Names the file that cannot be read, is no tokenizer, is refused, or lacks the end token.
    pub fn from_file(path: impl AsRef<Path>, end: Option<&str>) -> Result<Tokenizer> {
        let path = path.as_ref();
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let bytes = pheye_files::read(&path, Kind::Regular, FILE_LIMIT)
            .map_err(|source| Error::Read { path: path.clone(), source })?;
        let beside = match end {
            Some(_) => None,
            None => end_in_config(&path.with_file_name("tokenizer_config.json"))?,
        };
        Tokenizer::new(path, bytes, end.or(beside.as_deref()))
    }

    /// Reads the contents of a `tokenizer.json`. The end token is `end` if given, else `<|endoftext|>`.
    ///
    /// # Errors
    /// When [`Tokenizer::from_file`] fails.
    pub fn from_bytes(bytes: &[u8], end: Option<&str>) -> Result<Tokenizer> {
        Tokenizer::new("tokenizer.json".into(), bytes.to_owned(), end)
    }

    fn new(path: PathBuf, bytes: Vec<u8>, end: Option<&str>) -> Result<Tokenizer> {
        let none = |reason: String| Error::NotATokenizer { path: path.clone(), reason };
        let text = pheye_files::text(bytes).map_err(|e| none(e.to_string()))?;
        let facts = inspect(&text).map_err(|fault| match fault {
            Fault::Form(e) => none(e.to_string()),
            Fault::Excess(reason) => Error::Refused { path: path.clone(), reason },
        })?;
        let read = caught(|| read(&text).map_err(|e| e.to_string()));
        let (inner, largest) = read.and_then(|read| read).map_err(none)?;
        let token = end.unwrap_or(DEFAULT_END);
        let Some(end) = inner.token_to_id(token) else {
            return Err(Error::NoEndToken { path, token: token.to_owned() });
        };
        Ok(Tokenizer { inner, path, end, largest, facts })
    }

    /// The ids of `text`, without any token that `text` does not spell out.
    ///
    /// # Errors
    /// [`Error::Tokenize`] where the tokenizer has no token for something and no stand-in for unknown tokens, or fails in
    /// another way; [`Error::TextTooLong`] from a mebibyte on.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_within(text, usize::MAX)
    }

    /// As [`Tokenizer::encode`] for a text that is meant to be at most `context` tokens. One that is far too long, compared
    /// with the longest token, is refused before it costs memory and time; one that is a little too long may pass.
    ///
    /// # Errors
    /// When [`Tokenizer::encode`] fails.
    pub fn encode_within(&self, text: &str, context: usize) -> Result<Vec<u32>> {
        let limit = self.facts.longest.saturating_mul(context).clamp(*TEXTS.start(), *TEXTS.end());
        let too_long = |bytes: usize| Err(Error::TextTooLong { bytes, limit, tokens: context });
        if text.len() > limit {
            return too_long(text.len());
        }
        if (text.len() as u64).saturating_mul(self.facts.growth) > limit as u64 {
            let bytes = self.library(|| self.normalized(text, limit))?;
            if bytes > limit {
                return too_long(bytes);
            }
        }
        self.library(|| Ok(self.inner.encode_fast(text, false)?.get_ids().to_vec()))
    }

    /// The bytes of `text` when it is normalised, or some number above `limit`. Small pieces are normalised one by one, so
    /// that a text never gets long in memory.
    fn normalized(&self, text: &str, limit: usize) -> tokenizers::Result<usize> {
        let Some(normalizer) = self.inner.get_normalizer() else { return Ok(text.len()) };
        let (mut rest, mut bytes) = (text, 0);
        while !rest.is_empty() && bytes <= limit {
            let cut = (1..=PIECE.min(rest.len()))
                .rev()
                .find(|&cut| rest.is_char_boundary(cut))
                .unwrap_or(rest.len());
            let (piece, after) = rest.split_at(cut);
            let mut normalized = NormalizedString::from(piece);
            normalizer.normalize(&mut normalized)?;
            bytes += normalized.get().len();
            rest = after;
        }
        Ok(bytes)
    }

    /// The text of `ids`, special tokens left out; bytes that form no character become `U+FFFD`.
    ///
    /// # Errors
    /// [`Error::Tokenize`] when the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let tokens: Vec<String> = ids.iter().filter_map(|&id| self.token(id)).collect();
        match self.inner.get_decoder() {
            None => Ok(tokens.join(" ")),
            Some(_) if tokens.is_empty() => Ok(String::new()),
            Some(decoder) => self.library(|| decoder.decode(tokens)),
        }
    }

    /// The token that a decoder gets for `id`: none for special tokens and unknown ids.
    pub(crate) fn token(&self, id: u32) -> Option<String> {
        let special = |token: &String| self.inner.get_added_vocabulary().is_special_token(token);
        self.inner.id_to_token(id).filter(|token| !special(token))
    }

    /// The token as the vocabulary spells it, or `None` for an id that it has not.
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// A decoder for ids that come one by one.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(self)
    }

    /// The id that ends an answer.
    pub fn end_token(&self) -> u32 {
        self.end
    }

    /// One more than the largest id; a model's vocabulary may be larger.
    pub fn vocab_size(&self) -> usize {
        self.largest as usize + 1
    }

    /// Checks that a model with `vocab` embeddings has one for every id.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] with both numbers when it has not.
    pub fn check_fits(&self, vocab: usize) -> Result<()> {
        if self.vocab_size() > vocab {
            return Err(Error::Vocabulary { path: self.path.clone(), largest: self.largest, vocab });
        }
        Ok(())
    }

    /// What the library makes of `work`, its panics as errors.
    pub(crate) fn library<T>(&self, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
        let done = caught(|| work().map_err(|e| e.to_string()));
        done.and_then(|done| done).map_err(|reason| self.failed(reason))
    }

    pub(crate) fn failed(&self, reason: String) -> Error {
        Error::Tokenize { path: self.path.clone(), reason }
    }
}

/// The library's tokenizer and its largest id. Some files carry the settings of whoever saved them: texts must be neither
/// cut nor filled up nor surrounded, and the same text must always have the same ids.
fn read(text: &str) -> tokenizers::Result<(tokenizers::Tokenizer, u32)> {
    let mut inner = tokenizers::Tokenizer::from_bytes(text)?;
    inner.with_padding(None).with_truncation(None)?;
    inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
    if let ModelWrapper::BPE(model) = inner.get_model()
        && model.dropout.is_some()
    {
        let mut model = model.clone();
        model.dropout = None;
        inner.with_model(model);
    }
    let largest = inner.get_vocab(true).into_values().max().ok_or("its vocabulary is empty")?;
    Ok((inner, largest))
}

/// `eos_token`, a string or an object with `content`; `None` when there is no such file or key.
fn end_in_config(path: &Path) -> Result<Option<String>> {
    let text = match pheye_files::read_text(path, Kind::Regular, CONFIG_LIMIT) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    let bad = |reason: String| Error::Config { path: path.to_owned(), reason };
    let config: Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    match &config["eos_token"] {
        Value::Null => Ok(None),
        Value::String(token) => Ok(Some(token.clone())),
        object => match object["content"].as_str() {
            Some(token) => Ok(Some(token.to_owned())),
            None => Err(bad(format!("eos_token is neither a string nor an object with content: {object}"))),
        },
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({}, {} ids)", self.path.display(), self.vocab_size())
    }
}
