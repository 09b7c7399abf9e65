//! The errors of this crate. Every variant names the file or the option at fault.

use std::path::PathBuf;

use pheye_files::quoted;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a generator cannot be built, or a scene cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option has a value outside its range.
    #[error("{option}: {message}")]
    Option {
        /// Name of the field of [`Options`](crate::Options).
        option: &'static str,
        /// The value and the range.
        message: String,
    },
    /// A file or folder could not be read.
    #[error("{}: cannot be read", quoted(&path.display().to_string()))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A folder has no file of the kind that it is for, or too many.
    #[error("{}: {message}", quoted(&path.display().to_string()))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        message: String,
    },
    /// A font cannot be used.
    #[error("{}: {message}", quoted(font))]
    Font {
        /// The file, or the name of a built-in font.
        font: String,
        /// Why not.
        message: String,
    },
    /// A background image cannot be decoded.
    #[error("a background cannot be used")]
    Background(#[source] pheye_image::Error),
    /// A line of the lexicon is invalid.
    #[error("{}, line {line}: {message}", quoted(&path.display().to_string()))]
    Lexicon {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why not.
        message: String,
    },
    /// An image could not be encoded.
    #[error("the image cannot be encoded as {format}")]
    Encode {
        /// PNG or JPEG.
        format: &'static str,
        /// The encoder's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
