//! Loads any `tokenizer.json` with the `tokenizers` library, whose panics and memory use are contained.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use pheye_files::{CONFIG_LIMIT, Kind, caught};
use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::{Decoder, NormalizedString, Normalizer};

use crate::fault::Fault;
use crate::inspect::{FILE_LIMIT, Facts, inspect};
use crate::{Error, Result, TextStream};

/// The end token of Phi, and the default without a `tokenizer_config.json`.
const DEFAULT_END: &str = "<|endoftext|>";
/// Range of the limit on a text in bytes: up to 16 KiB are always tokenized, more than 1 MiB never. The
/// library needs about 600 bytes of memory per byte.
const TEXTS: std::ops::RangeInclusive<usize> = 16 << 10..=1 << 20;
/// Number of bytes that are normalized at a time to determine the normalized length of a text.
const PIECE: usize = 64;

/// A tokenizer in the format `tokenizer.json`.
#[derive(Clone)]
pub struct Tokenizer {
    pub(crate) inner: tokenizers::Tokenizer,
    path: PathBuf,
    end: u32,
    largest: u32,
    facts: Facts,
}

impl Tokenizer {
    /// Loads `path`, a `tokenizer.json` of at most 64 MiB or a folder that contains one. The end token is
    /// `end` if given, otherwise the `eos_token` of the `tokenizer_config.json` in the same folder, otherwise
    /// `<|endoftext|>`.
    ///
    /// # Errors
    /// Returns an error that names the file if it cannot be read, is not a tokenizer, exceeds a limit, or
    /// lacks the end token.
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

    /// Parses the contents of a `tokenizer.json`. The end token is `end` if given, otherwise `<|endoftext|>`.
    ///
    /// # Errors
    /// Returns an error if the contents are not a tokenizer, exceed a limit, or lack the end token.
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

    /// The ids of `text`, without special tokens that `text` does not contain.
    ///
    /// # Errors
    /// Returns [`Error::Tokenize`] if the tokenizer fails, for example without a token for a character and
    /// without an unknown token, and [`Error::TextTooLong`] for a text of more than 1 MiB.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_within(text, usize::MAX)
    }

    /// Like [`Tokenizer::encode`] for a text of at most `context` tokens. A text that is far too long,
    /// judging by the longest token, is rejected before it needs memory and time; a text that is slightly too
    /// long may be encoded.
    ///
    /// # Errors
    /// Returns the errors of [`Tokenizer::encode`], with a limit in bytes that follows from `context`.
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

    /// The length in bytes of the normalized `text`, or a number above `limit`. The text is normalized in
    /// small pieces, to bound the memory.
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

    /// Decodes `ids` without special tokens. Bytes that do not form a character become `U+FFFD`.
    ///
    /// # Errors
    /// Returns [`Error::Tokenize`] if the decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let tokens: Vec<String> = ids.iter().filter_map(|&id| self.token(id)).collect();
        match self.inner.get_decoder() {
            None => Ok(tokens.join(" ")),
            Some(_) if tokens.is_empty() => Ok(String::new()),
            Some(decoder) => self.library(|| decoder.decode(tokens)),
        }
    }

    /// The token that a decoder receives for `id`; `None` for special tokens and unknown ids.
    pub(crate) fn token(&self, id: u32) -> Option<String> {
        let special = |token: &String| self.inner.get_added_vocabulary().is_special_token(token);
        self.inner.id_to_token(id).filter(|token| !special(token))
    }

    /// The token as spelled in the vocabulary, or `None` for an unknown id.
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// A streaming decoder.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(self)
    }

    /// The id of the end token.
    pub fn end_token(&self) -> u32 {
        self.end
    }

    /// The largest id plus 1. The vocabulary of a model may be larger.
    pub fn vocab_size(&self) -> usize {
        self.largest as usize + 1
    }

    /// Checks that a model with `vocab` embeddings has one for every id.
    ///
    /// # Errors
    /// Returns [`Error::Vocabulary`] with both numbers if it does not.
    pub fn check_fits(&self, vocab: usize) -> Result<()> {
        if self.vocab_size() > vocab {
            return Err(Error::Vocabulary { path: self.path.clone(), largest: self.largest, vocab });
        }
        Ok(())
    }

    /// Calls the library and converts its errors and panics to [`Error::Tokenize`].
    pub(crate) fn library<T>(&self, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
        let done = caught(|| work().map_err(|e| e.to_string()));
        done.and_then(|done| done).map_err(|reason| self.failed(reason))
    }

    pub(crate) fn failed(&self, reason: String) -> Error {
        Error::Tokenize { path: self.path.clone(), reason }
    }
}

/// Parses the tokenizer and returns it with its largest id. Truncation, padding, added special tokens and BPE
/// dropout are turned off: some files contain these settings, but the same text must always give the same,
/// complete ids.
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

/// The `eos_token`, a string or an object with the key `content`; `None` if the file or key does not exist.
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
