//! The errors of this crate, each with its manifest, line or image.

use std::path::PathBuf;

use pheye_files::quoted;

use crate::Content;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why data could not be used, or an option is invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: cannot be read", quoted(name))]
    Io {
        /// The file, with its archive if it is in one.
        name: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// An archive is damaged or not a zip archive.
    #[error("{}: cannot be unpacked", quoted(name))]
    Zip {
        /// The archive, or the file in it.
        name: String,
        /// The error of the zip reader.
        source: zip::result::ZipError,
    },
    /// A container of images, such as a tar archive, is damaged or of a form that is not read.
    #[error("{}: not a {kind} file that this program reads", quoted(name))]
    Container {
        /// The container, or the file in it.
        name: String,
        /// Its kind: tar, Parquet or base64 JSON.
        kind: &'static str,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An archive contains two files of the same name, so that the name is ambiguous.
    #[error("{}: holds two files named {}", quoted(archive), quoted(name))]
    Duplicate {
        /// The archive.
        archive: String,
        /// The name.
        name: String,
    },
    /// A line of a manifest is invalid.
    #[error("{}, line {line}: {}", quoted(name), quoted(message))]
    Line {
        /// The manifest.
        name: String,
        /// Line number, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// An image or text of a manifest cannot be used.
    #[error("{}, line {line}", quoted(name))]
    Item {
        /// The manifest.
        name: String,
        /// Line number, from 1.
        line: usize,
        /// What is wrong.
        source: Box<Error>,
    },
    /// A row of a published file has another form than its format says.
    #[error("{}{}: {}", quoted(name), row_place(*row), quoted(message))]
    Row {
        /// The file.
        name: String,
        /// Row number, from 1; 0 before the first row.
        row: usize,
        /// What is wrong.
        message: String,
    },
    /// An image or text of a row of a published file cannot be used.
    #[error("{}{}", quoted(name), row_place(*row))]
    RowItem {
        /// The file.
        name: String,
        /// Row number, from 1.
        row: usize,
        /// What is wrong.
        source: Box<Error>,
    },
    /// A file changed while it was used.
    #[error("{}: changed since it was opened", quoted(name))]
    Changed {
        /// The file.
        name: String,
    },
    /// No row of a published file can be used.
    #[error("{}: none of its {rows} rows is used ({})", quoted(name), quoted(why))]
    Empty {
        /// The file.
        name: String,
        /// Number of rows.
        rows: u64,
        /// Why rows are left out, with their numbers.
        why: String,
    },
    /// A key of a source is missing, or its value does not go with the format.
    #[error("source {}, `{key}`: {message}", quoted(&path.display().to_string()))]
    Setting {
        /// The path that names the source.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong.
        message: String,
    },
    /// No item of the manifest has the content to train on.
    #[error("{}: nothing to learn from: no line has {}", path.display(), content.needs())]
    Nothing {
        /// The manifest.
        path: PathBuf,
        /// The content to train on.
        content: Content,
    },
    /// The weights do not match the manifests, or one is not positive.
    #[error("{weights} weights for {manifests} manifests; one positive weight for each is needed")]
    Weights {
        /// Number of manifests.
        manifests: usize,
        /// Number of weights.
        weights: usize,
    },
    /// An epoch has more samples than can be numbered.
    #[error("an epoch of {samples:.3e} samples is too long; at most {limit} can be numbered")]
    Epoch {
        /// Samples of an epoch.
        samples: f64,
        /// The maximum.
        limit: u64,
    },
    /// There is no augmentation of this name.
    #[error("unknown augmentation `{}`; known are hflip, vflip, rot90 and shift:N (pixels)", quoted(_0))]
    Augmentation(String),
    /// A shift by more pixels than an image can have.
    #[error("augmentation `{}` is out of range: N of shift:N is at most {} pixels", quoted(_0), u16::MAX)]
    Shift(String),
    /// An option that must be at least 1 is 0.
    #[error("{option} is 0, at least 1 is needed")]
    Zero {
        /// The option.
        option: &'static str,
    },
    /// An image cannot be decoded.
    #[error(transparent)]
    Image(#[from] pheye_image::Error),
    /// A text cannot be encoded.
    #[error("a text cannot be encoded")]
    Encode {
        /// The error of the tokenizer or the prompt template.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A text has too many tokens.
    #[error("{tokens} tokens with the prompt, at most {limit} fit (max_tokens)")]
    TooLong {
        /// Its number of tokens.
        tokens: usize,
        /// The maximum.
        limit: usize,
    },
    /// A text has more bytes than `max_tokens` tokens can represent.
    #[error("a text of {bytes} bytes, but {tokens} tokens (max_tokens) stand for at most {limit}")]
    TooManyBytes {
        /// Its length in bytes.
        bytes: usize,
        /// The maximum number of tokens.
        tokens: usize,
        /// The maximum number of bytes.
        limit: usize,
    },
    /// A text has no target token.
    #[error("a text has no token to learn from")]
    EmptyText,
    /// The thread that prepares batches has ended, after an error that was reported or a panic.
    #[error("the thread that builds batches has stopped")]
    Stopped,
}

impl Error {
    /// [`Error::Container`] for the container `name`.
    pub(crate) fn container(
        name: impl std::fmt::Display,
        kind: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Container { name: name.to_string(), kind, source: source.into() }
    }
}

/// The row in messages; nothing before the first.
fn row_place(row: usize) -> String {
    if row == 0 { String::new() } else { format!(", row {row}") }
}
