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
    /// A picture could not be read.
    Image(#[from] pheye_image::Error),
    /// A run could not be understood, started or saved.
    Train(#[from] pheye_train::Error),
    /// A model could not be judged.
    Eval(#[from] pheye_eval::Error),
}
