use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run does not start, go on, or save.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key that no config has.
    #[error("{}{}: unknown key `{key}`{}{}", path.display(), at(*line), place(table), hint(nearest, valid))]
    UnknownKey {
        /// The config.
        path: PathBuf,
        /// Line, from 1; 0 when it could not be told.
        line: usize,
        /// The table it stands in, empty at the top.
        table: String,
        /// The key.
        key: String,
        /// The valid key most like it.
        nearest: Option<String>,
        /// All valid keys.
        valid: Vec<String>,
    },
    /// A fault of syntax, type or range in a config.
    #[error("{}{}{}: {message}", path.display(), at(*line), of(key))]
    Config {
        /// The config.
        path: PathBuf,
        /// Line, from 1; 0 when the fault has none.
        line: usize,
        /// The key with its tables, or empty.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// A checkpoint that is incomplete or changed.
    #[error("checkpoint {} is damaged: {reason}", path.display())]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Every checkpoint of a run is damaged.
    #[error("no checkpoint of {} can be read:\n  {}", path.display(), reasons.join("\n  "))]
    AllDamaged {
        /// The folder of checkpoints.
        path: PathBuf,
        /// What is wrong with each.
        reasons: Vec<String>,
    },
    /// A checkpoint of a run with other settings.
    #[error(
        "{} was made with another config (then → now):\n  {}\nuse the old config, or another `train.out`",
        path.display(), differences.join("\n  ")
    )]
    OtherConfig {
        /// The checkpoint.
        path: PathBuf,
        /// The keys that differ, with both values.
        differences: Vec<String>,
    },
    /// A key that the task cannot do without.
    #[error("`{key}` is missing: task `{}` needs it", task.name())]
    Needed {
        /// The key.
        key: &'static str,
        /// The task.
        task: crate::Task,
    },
    /// A preset that does not exist.
    #[error("`model.preset`: there is no preset `{name}`; there are {}", pheye_model::PRESETS.join(", "))]
    Preset {
        /// The name asked for.
        name: String,
    },
    /// A network that `[model.config]` does not describe right.
    #[error("[model.config]: {message}")]
    Network {
        /// What is wrong.
        message: String,
    },
    /// No parameter matches.
    #[error("nothing to train: no parameter matches train.trainable = {patterns:?}")]
    NothingTrained {
        /// The patterns of the config.
        patterns: Vec<String>,
    },
    /// A run would overwrite another.
    #[error("{} holds an earlier run: go on with --resume, start again with --over, or choose another `train.out`", path.display())]
    RunExists {
        /// The folder of the run.
        path: PathBuf,
    },
    /// A loss or gradient that is infinite or not a number.
    #[error(
        "the {what} of step {step} is {value}, with {}; nothing was changed by this step, the last checkpoint is {}",
        pictures.join(", "),
        last.as_ref().map_or("none".to_owned(), |p| p.display().to_string())
    )]
    NotFinite {
        /// Loss or norm of the gradient.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step.
        step: u64,
        /// The pictures of its batches, or the place of their texts.
        pictures: Vec<String>,
        /// The last whole checkpoint.
        last: Option<PathBuf>,
    },
    /// The network could not be made or run.
    #[error(transparent)]
    Model(#[from] pheye_model::Error),
    /// A batch could not be made.
    #[error(transparent)]
    Data(#[from] pheye_data::Error),
    /// Weights could not be read or written.
    #[error(transparent)]
    Weights(#[from] pheye_weights::Error),
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] pheye_ops::Error),
    /// A tensor is not what was expected.
    #[error(transparent)]
    Tensor(#[from] pheye_tensor::Error),
    /// JSON of ours that cannot be made.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The optimizer.
    #[error(transparent)]
    Optim(#[from] pheye_optim::Error),
}

impl Error {
    /// An [`Error::Io`] about `path`.
    pub(crate) fn io(path: impl AsRef<Path>, source: std::io::Error) -> Error {
        Error::Io { path: path.as_ref().into(), source }
    }
}

fn place(table: &str) -> String {
    if table.is_empty() { String::new() } else { format!(" in [{table}]") }
}

fn hint(nearest: &Option<String>, valid: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => format!("; valid are {}", valid.join(", ")),
    }
}

fn at(line: usize) -> String {
    if line == 0 { String::new() } else { format!(", line {line}") }
}

fn of(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!(", `{key}`") }
}
