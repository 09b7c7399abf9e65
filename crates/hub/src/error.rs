//! Why a file of the hub could not be had: each error with the repository, file or host.

use std::io;
use std::path::{Path, PathBuf};

use pheye_files::quoted;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a file of the hub cannot be had. No message holds the token, nor a signed address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // fields are what the message says of them
pub enum Error {
    /// Text that names no repository.
    #[error("`{text}` is no name of a repository: {why}; OWNER/NAME or OWNER/NAME@REVISION is needed")]
    Name { text: String, why: &'static str },
    /// A file name that leads out of its repository.
    #[error("{repo}: `{file}` is no name of a file in a repository")]
    FileName { repo: String, file: String },
    /// An environment variable that cannot be followed.
    #[error("{name} {why}")]
    Setting { name: &'static str, why: &'static str },
    /// Network use is switched off, and the cache lacks the file.
    #[error(
        "{repo}: {file} is not in the cache (looked for {}), and HF_HUB_OFFLINE forbids downloading it; unset it, \
         or copy the cache of a machine that has the model",
        shown(looked_for)
    )]
    Offline { repo: String, file: String, looked_for: PathBuf },
    /// The server answers that there is no such repository or revision.
    #[error(
        "{repo} was not found at {endpoint}: no such repository, revision or file; check the name, and set HF_TOKEN \
         if the repository is private"
    )]
    NoRepo { repo: String, endpoint: String },
    /// The repository has no such file.
    #[error("{repo} has no file {file}")]
    NoFile { repo: String, file: String },
    /// Status 401 or 403.
    #[error("{repo}: {endpoint} refuses access to {file} (status {status}); {advice}")]
    Denied { repo: String, file: String, endpoint: String, status: u16, advice: &'static str },
    /// Another status than those the protocol knows.
    #[error("{repo}: {host} answered the request for {file} with status {status}; try again later")]
    Status { repo: String, file: String, host: String, status: u16 },
    /// An answer that is not one of a hub.
    #[error("{repo}: the answer for {file} from {host} {why}; is HF_ENDPOINT a Hugging Face hub?")]
    Protocol { repo: String, file: String, host: String, why: &'static str },
    /// No connection, or none that lives.
    #[error(
        "{repo}: cannot reach {host} for {file}: {why}; check the connection, HF_ENDPOINT and HTTPS_PROXY (what is \
         in the cache needs no network)"
    )]
    Unreachable { repo: String, file: String, host: String, why: String },
    /// The connection was cut again and again. What came is kept.
    #[error(
        "{repo}: the download of {file} was cut at {done} bytes and could not be continued: {why}; the same command \
         goes on from there"
    )]
    Cut { repo: String, file: String, done: u64, why: String },
    /// The contents are not those that the repository promises. They were deleted.
    #[error(
        "{repo}: {file} arrived corrupted: {what} is {found}, but {expected} was promised; it was deleted, run the \
         command again"
    )]
    Corrupt { repo: String, file: String, what: &'static str, found: String, expected: String },
    /// More than a file may have. What came was deleted.
    #[error("{repo}: {file} {}; it was not downloaded", too_large(*promised, *limit))]
    TooLarge { repo: String, file: String, limit: u64, promised: Option<u64> },
    /// The cache has a name for the contents, but no longer the contents.
    #[error(
        "{repo}: {file} in the cache is a link to contents that are gone: {} leads to {}; with a network they are \
         downloaded again (HF_HUB_OFFLINE unset), or delete the link",
        shown(link),
        shown(target)
    )]
    Gone { repo: String, file: String, link: PathBuf, target: PathBuf },
    /// A file of the cache cannot be read, written, locked or linked.
    #[error("{}: cannot {doing}{}", shown(path), hint(source))]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
}

/// What to do about the two faults that users meet.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space, or set HF_HOME to a folder that has it, and run the command again"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; set HF_HOME to a folder that may be written"
        }
        _ => "",
    }
}

fn too_large(promised: Option<u64>, limit: u64) -> String {
    match promised {
        Some(bytes) => format!("has {bytes} bytes, {limit} is the limit for such a file"),
        None => format!("is longer than {limit} bytes, and no answer says how long"),
    }
}

/// A path for a message: parts of it may come from a server.
fn shown(path: &Path) -> String {
    quoted(&path.display().to_string())
}
