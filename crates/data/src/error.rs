use std::path::PathBuf;

use crate::Content;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong with the data, or with how it is asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{name}: {source}")]
    Io {
        /// The file, with its archive if it lies in one.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An archive that is damaged or no zip archive.
    #[error("{name}: {source}")]
    Zip {
        /// The archive, or the file in it.
        name: String,
        /// What the reader said.
        source: zip::result::ZipError,
    },
    /// A line of a manifest that cannot be used.
    #[error("{name}, line {line}: {message}")]
    Line {
        /// The manifest.
        name: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
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
    /// An augmentation that does not exist.
    #[error("unknown augmentation `{0}`; known are hflip, vflip, rot90 and shift:N (pixels)")]
    Augmentation(String),
    /// A batch of no pictures, or no question of each.
    #[error("{option} is 0, at least 1 is needed")]
    Zero {
        /// The option.
        option: &'static str,
    },
    /// A picture that cannot be decoded.
    #[error(transparent)]
    Image(#[from] pheye_image::Error),
    /// A text that cannot be encoded.
    #[error("{name}: {source}")]
    Encode {
        /// Where the text comes from.
        name: String,
        /// What the tokenizer or the prompt template said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A text of too many tokens.
    #[error("{name}: {tokens} tokens with the prompt, at most {limit} fit (max_tokens)")]
    TooLong {
        /// Where the text comes from.
        name: String,
        /// Its length.
        tokens: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The thread that builds batches is gone, after an error that was reported or a panic.
    #[error("the thread that builds batches has stopped")]
    Stopped,
}
