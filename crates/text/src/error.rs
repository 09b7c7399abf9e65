use std::io;
use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a tokenizer, or with a text given to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // fields are what the message says of them
pub enum Error {
    /// The system refused to read a file.
    #[error("{}: cannot read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is not a tokenizer.
    #[error("{}: not a tokenizer: {reason}", path.display())]
    NotATokenizer { path: PathBuf, reason: String },
    /// The file beside the tokenizer that names its end token is damaged.
    #[error("{}: bad tokenizer config: {reason}", path.display())]
    Config { path: PathBuf, reason: String },
    /// The end token asked for, or named by the tokenizer's config, is not in the vocabulary.
    #[error("{}: the vocabulary has no token `{token}` to end an answer with", path.display())]
    NoEndToken { path: PathBuf, token: String },
    /// The tokenizer has ids that the model has no embedding for.
    #[error(
        "{}: this tokenizer does not fit the model: its ids go up to {largest}, the model's vocabulary has {vocab}",
        path.display()
    )]
    Vocabulary { path: PathBuf, largest: u32, vocab: usize },
    /// The tokenizer failed on a text.
    #[error("{}: cannot tokenize: {reason}", path.display())]
    Tokenize { path: PathBuf, reason: String },
    /// Nothing was asked.
    #[error("the instruction is empty")]
    EmptyInstruction,
    /// Nothing is to be learnt.
    #[error("the answer to `{instruction}` is empty")]
    EmptyAnswer { instruction: String },
    /// The template would leave the instruction out.
    #[error("the prompt template has no {{instruction}} in it: {template:?}")]
    NoPlaceholder { template: String },
    /// The prompt leaves no room in the model's context.
    #[error("the prompt has {len} tokens, the model's context has {context} and needs room for an answer")]
    TooLong { len: usize, context: usize },
}
