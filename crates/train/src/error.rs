//! The errors of a training run, each with its file, key or step.

use std::path::{Path, PathBuf};

use pheye_files::{printable, quoted};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run could not start, continue or be saved.
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
    /// A file or folder could not be created, written, moved or removed.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// An unknown key in a config.
    #[error("{}{}: unknown key `{}`{}{}", path.display(), at(*line), quoted(key), place(table), hint(nearest, valid))]
    UnknownKey {
        /// The config.
        path: PathBuf,
        /// Line number, from 1; 0 if it is not known.
        line: usize,
        /// The table that contains the key, empty for the root.
        table: String,
        /// The key.
        key: String,
        /// The most similar valid key.
        nearest: Option<String>,
        /// All valid keys.
        valid: Vec<String>,
    },
    /// A config has a wrong syntax, type or value.
    #[error("{}{}{}: {}", path.display(), at(*line), of(key), printable(message))]
    Config {
        /// The config.
        path: PathBuf,
        /// Line number, from 1; 0 if it is not known.
        line: usize,
        /// The key with its tables, or empty.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// A line of the metrics of a run is not valid.
    #[error("{}, line {line}: {}", path.display(), printable(message))]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A checkpoint is incomplete, or its contents have changed.
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
    /// The checkpoint was made with another config.
    #[error(
        "{} was made with another config (then → now):\n  {}\nuse the old config, or another folder (--out, `train.out`); a finished run goes on as a new one from its model (`model.init`)",
        path.display(), differences.join("\n  ")
    )]
    OtherConfig {
        /// The checkpoint.
        path: PathBuf,
        /// The keys that differ, with both values.
        differences: Vec<String>,
    },
    /// The checkpoint was made with files that have changed since.
    #[error(
        "{} was made with files that have changed since:\n  {}\nput them back as they were, or start again with --overwrite",
        path.display(), changes.join("\n  ")
    )]
    OtherFiles {
        /// The checkpoint.
        path: PathBuf,
        /// What has changed, one line each.
        changes: Vec<String>,
    },
    /// A key that the task requires is missing.
    #[error("`{key}` is missing: task `{}` needs it", task.name())]
    Needed {
        /// The key.
        key: &'static str,
        /// The task.
        task: crate::Task,
    },
    /// A plan of another task than `pheye` is wanted.
    #[error("--plan works for task `pheye` only, and this is task `{}`", task.name())]
    NoPlan {
        /// The task.
        task: crate::Task,
    },
    /// There is no preset of this name.
    #[error("`model.preset`: there is no preset `{name}`; there are {}", pheye_model::PRESETS.join(", "))]
    Preset {
        /// The name.
        name: String,
    },
    /// `[model.config]` has an unknown key or a value of the wrong type.
    #[error("[model.config]: {message}")]
    Network {
        /// What is wrong.
        message: String,
    },
    /// No parameter matches `train.trainable`.
    #[error("nothing to train: no parameter matches train.trainable = {patterns:?}")]
    NothingTrained {
        /// The patterns of the config.
        patterns: Vec<String>,
    },
    /// A table of `optim.share` selects no trained parameter.
    #[error("optim.share[{table}]: no trained parameter matches params = {patterns:?}")]
    NoShare {
        /// The number of the table, from 0.
        table: usize,
        /// Its patterns.
        patterns: Vec<String>,
    },
    /// The run would overwrite another.
    #[error("{} holds an earlier run: go on with --resume, start again with --overwrite, or choose another folder (--out, `train.out`)", path.display())]
    RunExists {
        /// The folder of the run.
        path: PathBuf,
    },
    /// Another process runs in the same folder.
    #[error("another run is writing to {}: wait for it, stop it, or choose another folder (--out, `train.out`)", path.display())]
    RunBusy {
        /// The folder of the run.
        path: PathBuf,
    },
    /// The lock file of the run was removed, and another process has created and locked a new one.
    #[error("{} is no longer the lock of this run: somebody replaced it; nothing more is saved", path.display())]
    LockLost {
        /// The lock file.
        path: PathBuf,
    },
    /// Every sample of the data was skipped.
    #[error("nothing could be used in {samples} samples; the first of them: {}", quoted(first))]
    NothingUsable {
        /// Number of consecutive samples that were tried.
        samples: u64,
        /// Why the first of them was skipped.
        first: String,
    },
    /// The data of the next step could not be read; the run was saved first.
    #[error("stopped before step {}; step {step} is saved as {}, and --resume goes on from there", step + 1, path.display())]
    Halted {
        /// Steps taken.
        step: u64,
        /// The checkpoint that was saved.
        path: PathBuf,
        /// What is wrong with the data.
        source: Box<Error>,
    },
    /// The caller's evaluation failed.
    #[error("the evaluation after step {step}")]
    Evaluation {
        /// Steps taken.
        step: u64,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A loss or gradient is infinite or NaN.
    #[error(
        "the {what} of step {step} is {value}, with {}; nothing was changed by this step, the last checkpoint is {}",
        quoted(&images.join(", ")),
        last.as_ref().map_or("none".to_owned(), |p| p.display().to_string())
    )]
    NotFinite {
        /// `loss` or `norm of the gradient`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step.
        step: u64,
        /// The images of its micro-batches, or the positions of their texts.
        images: Vec<String>,
        /// The last undamaged checkpoint.
        last: Option<PathBuf>,
    },
    /// The GPU does not have enough memory for the run.
    #[error(
        "out of GPU memory: {free} of {total} are free and {wanted} more are needed; a step of {images} images and {tokens} \
         tokens takes about {estimate}; {}",
        if fits.is_empty() { "no setting of this model fits".to_owned() } else { format!("what fits: {}", fits.join("; or ")) },
        wanted = size(*wanted), free = size(*free), total = size(*total), estimate = size(*estimate)
    )]
    Memory {
        /// Bytes of the allocation that failed.
        wanted: u64,
        /// Free bytes at that moment.
        free: u64,
        /// Total bytes of the GPU.
        total: u64,
        /// Images in the micro-batch.
        images: usize,
        /// Tokens in the micro-batch.
        tokens: usize,
        /// Estimated bytes of the whole step.
        estimate: u64,
        /// Settings of `[train]` that would fit.
        fits: Vec<String>,
    },
    /// The network could not be built or run.
    #[error(transparent)]
    Model(#[from] pheye_model::Error),
    /// A GPT-2 could not be built or saved.
    #[error(transparent)]
    Gpt2(#[from] pheye_gpt2::Error),
    /// A system that Pheye is compared with could not be built or run.
    #[error(transparent)]
    Baseline(#[from] pheye_baselines::Error),
    /// A batch could not be made.
    #[error(transparent)]
    Data(#[from] pheye_data::Error),
    /// Weights could not be read or written.
    #[error(transparent)]
    Weights(#[from] pheye_weights::Error),
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] pheye_ops::Error),
    /// A tensor has an unexpected shape or data type.
    #[error(transparent)]
    Tensor(#[from] pheye_tensor::Error),
    /// A value could not be serialized as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The optimizer failed.
    #[error(transparent)]
    Optim(#[from] pheye_optim::Error),
}

impl Error {
    /// The GPU error in this error, if there is one.
    pub fn gpu(&self) -> Option<&pheye_tensor::GpuError> {
        match self {
            Error::Model(e) => e.gpu(),
            Error::Baseline(e) => e.gpu(),
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

/// Formats a number of bytes in the largest binary unit that does not exceed it.
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
