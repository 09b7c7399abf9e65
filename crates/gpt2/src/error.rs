//! The error type of this crate.

use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a GPT-2 model could not be built, loaded or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid value in a configuration.
    #[error("GPT-2 config: {option} is {value}, but {rule}")]
    Config {
        /// Name of the invalid option.
        option: &'static str,
        /// Its value.
        value: String,
        /// The condition that the value must satisfy.
        rule: String,
    },
    /// A folder contains no weights.
    #[error("{} holds no weights: none of {}", path.display(), .looked_for.join(", "))]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// The files it may have.
        looked_for: &'static [&'static str],
    },
    /// A file could not be read or written, or does not fit the network.
    #[error(transparent)]
    Weights(#[from] pheye_weights::Error),
}
