use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be built, loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A configuration file does not say what it should.
    #[error("{path}: {why}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A folder that holds no model.
    #[error("{path} holds no model: neither `pheye.json` (this project's layout) nor `config.json` (the released one)")]
    NoModel {
        /// The folder.
        path: PathBuf,
    },
    /// The vision configuration is impossible.
    #[error(transparent)]
    Vision(#[from] pheye_vit::Error),
    /// The text configuration is impossible.
    #[error(transparent)]
    TextConfig(#[from] pheye_phi::Error),
    /// The connector configuration is impossible.
    #[error(transparent)]
    Connector(#[from] pheye_xattn::Error),
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] pheye_ops::Error),
    /// A tensor is not what was expected.
    #[error(transparent)]
    Tensor(#[from] pheye_tensor::Error),
    /// A checkpoint could not be read or written, or does not fit.
    #[error(transparent)]
    Weights(#[from] pheye_weights::Error),
    /// A prompt and its answer do not fit the context.
    #[error("a prompt of {prompt} tokens leaves no room in a context of {context}")]
    Context {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the context.
        context: usize,
    },
}
