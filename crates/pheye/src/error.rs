//! One error type over the crates behind this one.

use std::path::{Path, PathBuf};

use pheye_files::quoted;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whatever can go wrong in one of the crates behind this one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error(transparent)]
pub enum Error {
    /// The model could not be loaded or run.
    Model(#[from] pheye_model::Error),
    /// A tokenizer could not be read, or a prompt is no prompt.
    Text(#[from] pheye_text::Error),
    /// A file could not be had from the hub.
    #[cfg(feature = "hub")]
    Hub(#[from] pheye_hub::Error),
    /// A repository of the hub that holds something else.
    #[error(
        "{repo} holds no model of this kind: neither a released `config.json` with `encoder` and `decoder` nor \
         `pheye.json`"
    )]
    NotAModel {
        /// The repository.
        repo: String,
    },
    /// A folder that is not there, and not the name of anything else.
    #[error("there is no folder {}{}", shown(folder), quoted(advice))]
    NoFolder {
        /// The folder.
        folder: PathBuf,
        /// What to give instead; may be empty.
        advice: String,
    },
    /// A name of a hub's model that neither a folder, the cache nor the hub knows.
    #[cfg(feature = "hub")]
    #[error("{} is neither a folder here nor a model of the cache{}", quoted(model), quoted(advice))]
    Unknown {
        /// The name.
        model: String,
        /// What to give instead; may be empty.
        advice: String,
        /// What the hub says of it.
        source: pheye_hub::Error,
    },
    /// A link that leads to nothing.
    #[error("{} is a link to {}, which does not exist", shown(link), shown(target))]
    Dangling {
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// An image could not be read.
    Image(#[from] pheye_image::Error),
    /// A run could not be understood, started or saved.
    Train(#[from] pheye_train::Error),
    /// A model could not be judged.
    Eval(#[from] pheye_eval::Error),
}

impl Error {
    /// The GPU's error in this one, if it is one.
    pub fn gpu(&self) -> Option<&pheye_tensor::GpuError> {
        match self {
            Error::Model(e) => e.gpu(),
            Error::Train(e) => e.gpu(),
            _ => None,
        }
    }
}

/// A path for a message: its name may come from a file.
fn shown(path: &Path) -> String {
    quoted(&path.display().to_string())
}
