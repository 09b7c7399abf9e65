//! The errors of this crate, each with its file and what is wrong in it.

use pheye_files::quoted;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: cannot be read", quoted(name))]
    Io {
        /// The file.
        name: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file has another form than the metric's official files.
    #[error("{}: not {form}", quoted(name))]
    Form {
        /// The file.
        name: String,
        /// What it should be.
        form: &'static str,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// Some entries of a file cannot be scored.
    #[error("{}: {count} {what}: {}", quoted(name), quoted(&examples.join(", ")))]
    Entries {
        /// The file.
        name: String,
        /// The number of entries.
        count: usize,
        /// What is wrong with them.
        what: &'static str,
        /// The first of them.
        examples: Vec<String>,
    },
    /// There is nothing to score.
    #[error("{}: it has no {what}", quoted(name))]
    Empty {
        /// The file.
        name: String,
        /// What it should have.
        what: &'static str,
    },
    /// Java could not be run.
    #[error("METEOR: java with {}: {message}", quoted(jar))]
    Meteor {
        /// The jar.
        jar: String,
        /// What happened.
        message: String,
    },
    /// Java could not be started, or its input or output failed.
    #[error("METEOR: java with {}", quoted(jar))]
    Java {
        /// The jar.
        jar: String,
        /// The operating system's error.
        source: std::io::Error,
    },
}
