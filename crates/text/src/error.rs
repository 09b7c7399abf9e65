//! Why a tokenizer or a text could not be used: each error with its file or option.

use std::io;
use std::path::{Path, PathBuf};

use pheye_files::quoted;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a tokenizer, or with a text given to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // fields are what the message says of them
pub enum Error {
    /// The system refused to read a file, or it is none that may be read.
    #[error("{}: cannot be read", shown(path))]
    Read { path: PathBuf, source: io::Error },
    /// The file is not a tokenizer.
    #[error("{}: not a tokenizer: {}", shown(path), quoted(reason))]
    NotATokenizer { path: PathBuf, reason: String },
    /// A tokenizer that would take unreasonable memory or time, or whose answers would depend on chance.
    #[error("{}: this tokenizer is refused: {}", shown(path), quoted(reason))]
    Refused { path: PathBuf, reason: String },
    /// The file beside the tokenizer that names its end token is damaged.
    #[error("{}: bad tokenizer config: {}", shown(path), quoted(reason))]
    Config { path: PathBuf, reason: String },
    /// The end token asked for, or named by the tokenizer's config, is not in the vocabulary.
    #[error("{}: the vocabulary has no token `{}` to end an answer with", shown(path), quoted(token))]
    NoEndToken { path: PathBuf, token: String },
    /// The tokenizer has ids that the model has no embedding for.
    #[error(
        "{}: this tokenizer does not fit the model: its ids go up to {largest}, the model's vocabulary has {vocab}",
        shown(path)
    )]
    Vocabulary { path: PathBuf, largest: u32, vocab: usize },
    /// The tokenizer failed on a text or on ids.
    #[error("{}: cannot tokenize: {}", shown(path), quoted(reason))]
    Tokenize { path: PathBuf, reason: String },
    /// Nothing was asked.
    #[error("the instruction is empty")]
    EmptyInstruction,
    /// Nothing is to be learnt.
    #[error("the answer to `{}` is empty", quoted(instruction))]
    EmptyAnswer { instruction: String },
    /// The template would leave the instruction out.
    #[error("the prompt template has no {{instruction}} in it: {template:?}")]
    NoPlaceholder { template: String },
    /// The prompt leaves no room in the model's context.
    #[error("the prompt has {len} tokens, the model's context has {context} and needs room for an answer")]
    TooLong { len: usize, context: usize },
    /// The prompt is longer than any text that is made.
    #[error("the prompt would have {bytes} bytes, {limit} is the limit")]
    PromptTooLong { bytes: usize, limit: usize },
    /// The text is too long to be tokenized at all, whatever its tokens are.
    #[error("the text is too long: {bytes} bytes with its prompt, {limit} is the limit{}", context(*tokens))]
    TextTooLong { bytes: usize, limit: usize, tokens: usize },
}

fn context(tokens: usize) -> String {
    if tokens == usize::MAX { String::new() } else { format!(" for {tokens} tokens") }
}

/// A path for a message: its name may come from a file.
fn shown(path: &Path) -> String {
    quoted(&path.display().to_string())
}
