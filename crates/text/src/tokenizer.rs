use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Error, Result, TextStream};

/// The end token of Phi and of most models that have no config to say otherwise.
const DEFAULT_END: &str = "<|endoftext|>";

/// Any `tokenizer.json`.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    end: u32,
    largest: u32,
}

impl Tokenizer {
    /// Reads `path`, a `tokenizer.json` or a folder that holds one. The end token is `end` if given, else the
    /// `eos_token` of the `tokenizer_config.json` beside it, else `<|endoftext|>`.
    ///
    /// # Errors
    /// Names the file that cannot be read, is no tokenizer, or lacks the end token.
    pub fn from_file(path: impl AsRef<Path>, end: Option<&str>) -> Result<Tokenizer> {
        let path = path.as_ref();
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let bytes = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let beside = match end {
            Some(_) => None,
            None => end_in_config(&path.with_file_name("tokenizer_config.json"))?,
        };
        Tokenizer::new(path, &bytes, end.or(beside.as_deref()))
    }

    /// Reads the contents of a `tokenizer.json`. The end token is `end` if given, else `<|endoftext|>`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`].
    pub fn from_bytes(bytes: &[u8], end: Option<&str>) -> Result<Tokenizer> {
        Tokenizer::new("tokenizer.json".into(), bytes, end)
    }

    fn new(path: PathBuf, bytes: &[u8], end: Option<&str>) -> Result<Tokenizer> {
        let wrong = |e: tokenizers::Error| Error::NotATokenizer { path: path.clone(), reason: e.to_string() };
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(wrong)?;
        // Some files carry the settings of whoever saved them; texts must be neither cut nor filled up.
        inner.with_padding(None).with_truncation(None).map_err(wrong)?;
        let token = end.unwrap_or(DEFAULT_END);
        let Some(end) = inner.token_to_id(token) else {
            return Err(Error::NoEndToken { path, token: token.to_owned() });
        };
        let largest = inner.get_vocab(true).into_values().max().unwrap_or(end);
        Ok(Tokenizer { inner, path, end, largest })
    }

    /// The ids of `text`, without any token that `text` does not spell out.
    ///
    /// # Errors
    /// [`Error::Tokenize`] where the tokenizer has no token for something and no stand-in for unknown tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false);
        Ok(encoding.map_err(|e| self.failed(e))?.get_ids().to_vec())
    }

    /// The text of `ids`, special tokens left out; bytes that form no character become `U+FFFD`.
    ///
    /// # Errors
    /// [`Error::Tokenize`] when the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|e| self.failed(e))
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

    fn failed(&self, e: tokenizers::Error) -> Error {
        Error::Tokenize { path: self.path.clone(), reason: e.to_string() }
    }
}

/// `eos_token`, a string or an object with `content`; `None` when there is no such file or key.
fn end_in_config(path: &Path) -> Result<Option<String>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    let bad = |reason: String| Error::Config { path: path.to_owned(), reason };
    let config: Value = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
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
