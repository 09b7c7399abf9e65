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
    /// A picture could not be read.
    Image(#[from] pheye_image::Error),
    /// A run could not be understood, started or saved.
    Train(#[from] pheye_train::Error),
    /// A model could not be judged.
    Eval(#[from] pheye_eval::Error),
}
