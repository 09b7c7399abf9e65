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
    #[error("{}, line {line}: unknown key `{key}`{}{}", path.display(), place(table), hint(nearest, valid))]
    UnknownKey {
        /// The config.
        path: PathBuf,
        /// Line, from 1.
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
