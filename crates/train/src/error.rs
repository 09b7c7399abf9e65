//! Why a run could not start, go on or be saved: each error with its file, key or step.

use std::path::{Path, PathBuf};

use pheye_files::{printable, quoted};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run does not start, go on, or save.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file or folder could not be made, written, moved or removed.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A key that no config has.
    #[error("{}{}: unknown key `{}`{}{}", path.display(), at(*line), quoted(key), place(table), hint(nearest, valid))]
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
    #[error("{}{}{}: {}", path.display(), at(*line), of(key), printable(message))]
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
    /// A checkpoint of a run that began with other files than there are.
    #[error(
        "{} was made with files that have changed since:\n  {}\nput them back as they were, or start again with --over",
        path.display(), changes.join("\n  ")
    )]
    OtherFiles {
        /// The checkpoint.
        path: PathBuf,
        /// What has changed, one line each.
        changes: Vec<String>,
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
    /// Another process runs in the same folder.
    #[error("another run is writing to {}: wait for it, stop it, or choose another `train.out`", path.display())]
    RunBusy {
        /// The folder of the run.
        path: PathBuf,
    },
    /// Another process has taken over the folder of the run, after somebody removed its lock.
    #[error("{} is no longer the lock of this run: somebody replaced it; nothing more is saved", path.display())]
    LockLost {
        /// The file that keeps other processes out.
        path: PathBuf,
    },
    /// Images and texts were left out until none was left.
    #[error("nothing could be used in {samples} samples; the first of them: {}", quoted(first))]
    NothingUsable {
        /// Samples that were drawn one after another.
        samples: u64,
        /// Why the first of them was left out.
        first: String,
    },
    /// The data of the next step could not be had, and the run was saved before it.
    #[error("stopped before step {}; step {step} is saved as {}, and --resume goes on from there", step + 1, path.display())]
    Halted {
        /// Steps taken.
        step: u64,
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with the data.
        source: Box<Error>,
    },
    /// A loss or gradient that is infinite or not a number.
    #[error(
        "the {what} of step {step} is {value}, with {}; nothing was changed by this step, the last checkpoint is {}",
        quoted(&pictures.join(", ")),
        last.as_ref().map_or("none".to_owned(), |p| p.display().to_string())
    )]
    NotFinite {
        /// Loss or norm of the gradient.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step.
        step: u64,
        /// The images of its batches, or the place of their texts.
        pictures: Vec<String>,
        /// The last whole checkpoint.
        last: Option<PathBuf>,
    },
    /// The GPU has too little memory for the run.
    #[error(
        "out of GPU memory: {free} of {total} are free and {wanted} more are needed; a step of {pictures} pictures and {tokens} \
         tokens takes about {estimate}; {}",
        if fits.is_empty() { "no setting of this model fits".to_owned() } else { format!("what fits: {}", fits.join("; or ")) },
        wanted = size(*wanted), free = size(*free), total = size(*total), estimate = size(*estimate)
    )]
    Memory {
        /// Bytes asked for when there were none.
        wanted: u64,
        /// Bytes free then.
        free: u64,
        /// Bytes of the GPU.
        total: u64,
        /// Images of the micro-batch.
        pictures: usize,
        /// Its tokens.
        tokens: usize,
        /// Estimated bytes of the whole step.
        estimate: u64,
        /// Settings of `[train]` that would fit.
        fits: Vec<String>,
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
    /// The GPU's error in this one, if it is one.
    pub fn gpu(&self) -> Option<&pheye_tensor::GpuError> {
        match self {
            Error::Model(e) => e.gpu(),
            Error::Op(e) => e.gpu(),
            Error::Tensor(e) => e.gpu(),
            Error::Optim(pheye_optim::Error::Ops(e)) => e.gpu(),
            Error::Optim(pheye_optim::Error::Tensor(e)) => e.gpu(),
            _ => None,
        }
    }

    pub(crate) fn read(path: impl AsRef<Path>, source: std::io::Error) -> Error {
        Error::Read { path: path.as_ref().into(), source }
    }

    pub(crate) fn write(path: impl AsRef<Path>, source: std::io::Error) -> Error {
        Error::Write { path: path.as_ref().into(), source }
    }
}

/// Bytes in the largest binary unit of which there is one.
fn size(bytes: u64) -> String {
    let unit = ["B", "KiB", "MiB", "GiB"].iter().enumerate().rev().find(|(i, _)| bytes >> (10 * i) > 0);
    let (i, unit) = unit.unwrap_or((0, &"B"));
    format!("{:.1} {unit}", bytes as f64 / (1u64 << (10 * i)) as f64)
}

fn place(table: &str) -> String {
    if table.is_empty() { String::new() } else { format!(" in [{}]", quoted(table)) }
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
    if key.is_empty() { String::new() } else { format!(", `{}`", quoted(key)) }
}
