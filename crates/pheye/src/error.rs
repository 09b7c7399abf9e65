//! One error type for the crates behind this one.

use std::path::{Path, PathBuf};

use pheye_files::quoted;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of one of the crates behind this one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error(transparent)]
pub enum Error {
    /// The model could not be loaded or run.
    Model(#[from] pheye_model::Error),
    /// A system that Pheye is compared with could not be loaded or run.
    Baseline(#[from] pheye_baselines::Error),
    /// A tokenizer could not be read, or a prompt is invalid.
    Text(#[from] pheye_text::Error),
    /// A file could not be obtained from the hub.
    #[cfg(feature = "hub")]
    Hub(#[from] pheye_hub::Error),
    /// The repository on the hub is not a Pheye model.
    #[error(
        "{repo} holds no model of this kind: neither a released `config.json` with `encoder` and `decoder` nor \
         `pheye.json`"
    )]
    NotAModel {
        /// The repository.
        repo: String,
    },
    /// The folder does not exist.
    #[error(
        "there is no folder {}, and a name on the hub has the form OWNER/NAME{}",
        shown(folder),
        quoted(advice)
    )]
    NoFolder {
        /// The folder.
        folder: PathBuf,
        /// A suggestion for the user; may be empty.
        advice: String,
    },
    /// A file is given where a model is a folder.
    #[error("{} is a file; a model is given as the folder that holds its files", shown(path))]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },
    /// The folder is an adapter, which is only a part of a model.
    #[error(
        "{} is a LoRA adapter, only a part of a model; `pheye convert MODEL TO --lora-global DIR` (or `--lora-local`) \
         puts it into one",
        shown(folder)
    )]
    Adapter {
        /// The folder.
        folder: PathBuf,
    },
    /// The name is neither a folder, nor a model in the cache or on the hub.
    #[cfg(feature = "hub")]
    #[error("there is no folder {}, and no model of this name was found{}", quoted(model), quoted(advice))]
    Unknown {
        /// The name.
        model: String,
        /// A suggestion for the user; may be empty.
        advice: String,
        /// The error of the hub.
        source: pheye_hub::Error,
    },
    /// A symbolic link has no target.
    #[error("{} is a link to {}, which does not exist", shown(link), shown(target))]
    Dangling {
        /// The link.
        link: PathBuf,
        /// Its missing target.
        target: PathBuf,
    },
    /// An image could not be read.
    Image(#[from] pheye_image::Error),
    /// A training run could not be configured, started or saved.
    Train(#[from] pheye_train::Error),
    /// A model could not be evaluated.
    Eval(#[from] pheye_eval::Error),
    /// Test data could not be read.
    Data(#[from] pheye_data::Error),
    /// An image could not be encoded.
    #[cfg(feature = "ask")]
    Png(#[from] png::EncodingError),
}

impl Error {
    /// The GPU error in this error, if there is one.
    pub fn gpu(&self) -> Option<&pheye_tensor::GpuError> {
        match self {
            Error::Model(e) => e.gpu(),
            Error::Train(e) => e.gpu(),
            _ => None,
        }
    }
}

/// A path for a message, escaped because it may come from a file.
fn shown(path: &Path) -> String {
    quoted(&path.display().to_string())
}
