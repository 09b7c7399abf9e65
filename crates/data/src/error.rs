//! Why data could not be read: each error with its manifest, line or image.

use std::path::PathBuf;

use pheye_files::quoted;

use crate::Content;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong with the data, or with how it is asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: cannot be read", quoted(name))]
    Io {
        /// The file, with its archive if it lies in one.
        name: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// An archive that is damaged or no zip archive.
    #[error("{}: cannot be unpacked", quoted(name))]
    Zip {
        /// The archive, or the file in it.
        name: String,
        /// What the reader said.
        source: zip::result::ZipError,
    },
    /// An archive with two files of one name, of which either may be meant.
    #[error("{}: holds two files named {}", quoted(archive), quoted(name))]
    Duplicate {
        /// The archive.
        archive: String,
        /// The name.
        name: String,
    },
    /// A line of a manifest that cannot be used.
    #[error("{}, line {line}: {}", quoted(name), quoted(message))]
    Line {
        /// The manifest.
        name: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// An image or text of a manifest that cannot be used.
    #[error("{}, line {line}", quoted(name))]
    Item {
        /// The manifest.
        name: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        source: Box<Error>,
    },
    /// A manifest without a single item of the kind asked for.
    #[error("{}: nothing to learn from: no line has {}", path.display(), content.needs())]
    Nothing {
        /// The manifest.
        path: PathBuf,
        /// What was asked for.
        content: Content,
    },
    /// Manifests and weights that do not go together.
    #[error("{weights} weights for {manifests} manifests; one positive weight for each is needed")]
    Weights {
        /// Manifests given.
        manifests: usize,
        /// Weights given.
        weights: usize,
    },
    /// More samples than can be counted.
    #[error("an epoch of {samples:.3e} samples is too long; at most {limit} can be numbered")]
    Epoch {
        /// Samples of an epoch.
        samples: f64,
        /// The most there may be.
        limit: u64,
    },
    /// An augmentation that does not exist.
    #[error("unknown augmentation `{}`; known are hflip, vflip, rot90 and shift:N (pixels)", quoted(_0))]
    Augmentation(String),
    /// A shift by more pixels than any image has.
    #[error("augmentation `{}` is out of range: N of shift:N is at most {} pixels", quoted(_0), u16::MAX)]
    Shift(String),
    /// A batch of no images, or no question of each.
    #[error("{option} is 0, at least 1 is needed")]
    Zero {
        /// The option.
        option: &'static str,
    },
    /// An image that cannot be decoded.
    #[error(transparent)]
    Image(#[from] pheye_image::Error),
    /// A text that cannot be encoded.
    #[error("a text cannot be encoded")]
    Encode {
        /// What the tokenizer or the prompt template said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A text of too many tokens.
    #[error("{tokens} tokens with the prompt, at most {limit} fit (max_tokens)")]
    TooLong {
        /// Its length.
        tokens: usize,
        /// The most allowed.
        limit: usize,
    },
    /// A text of more bytes than the tokens that fit can stand for.
    #[error("a text of {bytes} bytes, but {tokens} tokens (max_tokens) stand for at most {limit}")]
    TooManyBytes {
        /// Its length.
        bytes: usize,
        /// The most tokens allowed.
        tokens: usize,
        /// The most bytes allowed.
        limit: usize,
    },
    /// A text without a single token to learn.
    #[error("a text has no token to learn from")]
    EmptyText,
    /// The thread that builds batches is gone, after an error that was reported or a panic.
    #[error("the thread that builds batches has stopped")]
    Stopped,
}
