//! The errors of this crate, each with its file or option.

use std::io;
use std::path::{Path, PathBuf};

use pheye_files::quoted;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a tokenizer could not be loaded, or a text not be tokenized.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages explain the fields
pub enum Error {
    /// A file could not be read, or is not a regular file.
    #[error("{}: cannot be read", shown(path))]
    Read { path: PathBuf, source: io::Error },
    /// The file is not a tokenizer.
    #[error("{}: not a tokenizer: {}", shown(path), quoted(reason))]
    NotATokenizer { path: PathBuf, reason: String },
    /// The tokenizer would need too much memory or time, or would not be deterministic.
    #[error("{}: this tokenizer is refused: {}", shown(path), quoted(reason))]
    Refused { path: PathBuf, reason: String },
    /// The `tokenizer_config.json`, which names the end token, is invalid.
    #[error("{}: bad tokenizer config: {}", shown(path), quoted(reason))]
    Config { path: PathBuf, reason: String },
    /// The requested end token, or the one named in `tokenizer_config.json`, is not in the vocabulary.
    #[error("{}: the vocabulary has no token `{}` to end an answer with", shown(path), quoted(token))]
    NoEndToken { path: PathBuf, token: String },
    /// The tokenizer has ids for which the model has no embedding.
    #[error(
        "{}: this tokenizer does not fit the model: its ids go up to {largest}, the model's vocabulary has {vocab}",
        shown(path)
    )]
    Vocabulary { path: PathBuf, largest: u32, vocab: usize },
    /// The tokenizer failed on a text or on ids.
    #[error("{}: cannot tokenize: {}", shown(path), quoted(reason))]
    Tokenize { path: PathBuf, reason: String },
    /// The instruction is empty.
    #[error("the question is empty")]
    EmptyInstruction,
    /// The answer is empty, so that there is nothing to train on.
    #[error("the answer to `{}` is empty", quoted(instruction))]
    EmptyAnswer { instruction: String },
    /// The prompt template does not contain the instruction.
    #[error("the prompt template has no {{instruction}} in it: {template:?}")]
    NoPlaceholder { template: String },
    /// The prompt leaves no room for an answer in the model's context.
    #[error("the prompt has {len} tokens, the model's context has {context} and needs room for an answer")]
    TooLong { len: usize, context: usize },
    /// The rendered prompt would exceed its limit in bytes.
    #[error("the prompt would have {bytes} bytes, {limit} is the limit")]
    PromptTooLong { bytes: usize, limit: usize },
    /// The text exceeds the limit in bytes and is not tokenized.
    #[error("the text is too long: {bytes} bytes with its prompt, {limit} is the limit{}", context(*tokens))]
    TextTooLong { bytes: usize, limit: usize, tokens: usize },
}

fn context(tokens: usize) -> String {
    if tokens == usize::MAX { String::new() } else { format!(" for {tokens} tokens") }
}

/// A path for a message, escaped because it may come from a file.
fn shown(path: &Path) -> String {
    quoted(&path.display().to_string())
}
