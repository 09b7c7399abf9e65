//! The errors of this crate, each with its file.

use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The golden file lacks an entry, or the entry has another shape.
    #[error("{}: golden entry `{}` {why}", path.display(), pheye_files::quoted(name))]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// `generate.json` is invalid.
    #[error("{}: {why}", path.display())]
    Generation {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The golden data has no bounds for a GPU.
    #[error(
        "{} is missing: it says how far bf16 may be off; `cargo xtask golden DIR` writes it (with PyTorch)",
        path.display()
    )]
    NoBf16 {
        /// The file.
        path: PathBuf,
    },
    /// The question set has no questions.
    #[error("{0} has no question with an answer")]
    NoQuestions(String),
    /// The golden file could not be read.
    #[error(transparent)]
    Weights(#[from] pheye_weights::Error),
    /// The model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] pheye_model::Error),
    /// The questions could not be read.
    #[error(transparent)]
    Data(#[from] pheye_data::Error),
    /// An image could not be read.
    #[error(transparent)]
    Image(#[from] pheye_image::Error),
    /// An optimizer step failed.
    #[error(transparent)]
    Optim(#[from] pheye_optim::Error),
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] pheye_ops::Error),
    /// A tensor has an unexpected shape or data type.
    #[error(transparent)]
    Tensor(#[from] pheye_tensor::Error),
}
