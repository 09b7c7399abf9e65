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
    /// The folder has nothing to compare with.
    #[error(
        "{} holds no golden.safetensors, the values that PyTorch computed; tests/golden/level1 is an example",
        folder.display()
    )]
    NoGolden {
        /// The folder.
        folder: PathBuf,
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
    /// A folder has the answers of an evaluation with other settings.
    #[error(
        "{}: `{key}` was {} and is now {}; choose another folder, or the same settings",
        path.display(),
        pheye_files::quoted(then),
        pheye_files::quoted(now)
    )]
    Settings {
        /// The file of the settings.
        path: PathBuf,
        /// The setting that differs.
        key: String,
        /// Its value then, as JSON.
        then: String,
        /// Its value now, as JSON.
        now: String,
    },
    /// The answers in a folder do not belong to the questions.
    #[error("{}, line {line}: {}", path.display(), pheye_files::quoted(why))]
    Predictions {
        /// The file of the answers.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The files of a benchmark could not be read, or its answers not be scored.
    #[error(transparent)]
    Metrics(#[from] pheye_metrics::Error),
    /// The golden file could not be read.
    #[error(transparent)]
    Weights(#[from] pheye_weights::Error),
    /// The model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] pheye_model::Error),
    /// A baseline could not be loaded or run.
    #[error(transparent)]
    Baseline(#[from] pheye_baselines::Error),
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
