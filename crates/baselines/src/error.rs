//! The error type of this crate. Every error names its file, key or option.

use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a system could not be built, loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option of the configuration is invalid.
    #[error("baseline config: {option} is {value}, but {rule}")]
    Option {
        /// Name of the invalid option.
        option: &'static str,
        /// Its value.
        value: String,
        /// The condition that the value must satisfy.
        rule: String,
    },
    /// A configuration file is invalid.
    #[error("{}: {why}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A folder contains no weights.
    #[error("{} holds no weights: none of {}", path.display(), .looked_for.join(", "))]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// The files it may have.
        looked_for: &'static [&'static str],
    },
    /// A folder could not be created.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The vision configuration is invalid.
    #[error(transparent)]
    Vision(#[from] pheye_vit::Error),
    /// The configuration of GPT-2 is invalid.
    #[error(transparent)]
    Text(#[from] pheye_gpt2::Error),
    /// The configuration of the resampler is invalid.
    #[error(transparent)]
    Resampler(#[from] pheye_resample::Error),
    /// A batch or a request is inconsistent, or generation failed.
    #[error(transparent)]
    Model(#[from] pheye_model::Error),
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] pheye_ops::Error),
    /// A tensor has an unexpected shape or type.
    #[error(transparent)]
    Tensor(#[from] pheye_tensor::Error),
    /// A checkpoint could not be read or written, or does not fit.
    #[error(transparent)]
    Weights(#[from] pheye_weights::Error),
}

impl Error {
    /// The GPU error that caused this one, if any.
    pub fn gpu(&self) -> Option<&pheye_tensor::GpuError> {
        match self {
            Error::Model(e) => e.gpu(),
            Error::Op(e) => e.gpu(),
            Error::Tensor(e) => e.gpu(),
            _ => None,
        }
    }
}
