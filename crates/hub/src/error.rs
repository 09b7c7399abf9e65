//! The error type of this crate. Each error names the repository, file or host.

use std::io;
use std::path::{Path, PathBuf};

use pheye_files::quoted;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of getting a file of the hub. No message contains the token or a signed URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // each message describes the fields
pub enum Error {
    /// The text is not the name of a repository.
    #[error("`{text}` is no name of a repository: {why}; OWNER/NAME or OWNER/NAME@REVISION is needed")]
    Name { text: String, why: &'static str },
    /// The name of the file leads out of the repository.
    #[error("{repo}: `{file}` is no name of a file in a repository")]
    FileName { repo: String, file: String },
    /// An environment variable has an invalid value.
    #[error("{name} {why}")]
    Setting { name: &'static str, why: &'static str },
    /// The cache does not contain the file, and network access is disabled.
    #[error(
        "{repo}: {file} is not in the cache (looked for {}), and HF_HUB_OFFLINE forbids downloading it; unset it, \
         or copy the cache of a machine that has the model",
        shown(looked_for)
    )]
    Offline { repo: String, file: String, looked_for: PathBuf },
    /// The server does not know the repository or revision.
    #[error(
        "{repo} was not found at {endpoint}: no such repository, revision or file; check the name, and set HF_TOKEN \
         if the repository is private"
    )]
    NoRepo { repo: String, endpoint: String },
    /// The repository does not contain the file.
    #[error("{repo} has no file {file}")]
    NoFile { repo: String, file: String },
    /// The server refuses access (status 401 or 403).
    #[error("{repo}: {endpoint} refuses access to {file} (status {status}); {advice}")]
    Denied { repo: String, file: String, endpoint: String, status: u16, advice: &'static str },
    /// The server answered with an unexpected status.
    #[error("{repo}: {host} answered the request for {file} with status {status}; try again later")]
    Status { repo: String, file: String, host: String, status: u16 },
    /// The answer is not that of a hub.
    #[error("{repo}: the answer for {file} from {host} {why}; is HF_ENDPOINT a Hugging Face hub?")]
    Protocol { repo: String, file: String, host: String, why: &'static str },
    /// The server cannot be reached, or the connection failed.
    #[error(
        "cannot reach {host} for {file} of {repo}: {why}; check the connection, HF_ENDPOINT and HTTPS_PROXY (what is \
         in the cache needs no network)"
    )]
    Unreachable { repo: String, file: String, host: String, why: String },
    /// The connection was interrupted too often. The bytes received so far are kept.
    #[error(
        "{repo}: the download of {file} was cut at {done} bytes and could not be continued: {why}; run the same \
         command again to continue from there"
    )]
    Cut { repo: String, file: String, done: u64, why: String },
    /// The size or checksum of the contents does not match. The contents were deleted.
    #[error(
        "{repo}: {file} arrived corrupted: {what} is {found}, but {expected} was promised; it was deleted, run the \
         command again"
    )]
    Corrupt { repo: String, file: String, what: &'static str, found: String, expected: String },
    /// The file exceeds its size limit. The bytes received were deleted.
    #[error("{repo}: {file} {}; it was not downloaded", too_large(*promised, *limit))]
    TooLarge { repo: String, file: String, limit: u64, promised: Option<u64> },
    /// The cache has a link for the file, but its target does not exist.
    #[error(
        "{repo}: {file} in the cache is a link to contents that are gone: {} leads to {}; with a network they are \
         downloaded again (HF_HUB_OFFLINE unset), or delete the link",
        shown(link),
        shown(target)
    )]
    Gone { repo: String, file: String, link: PathBuf, target: PathBuf },
    /// The cache does not have this repository.
    #[error("{repo} is not in the cache {}", shown(cache))]
    NotCached { repo: String, cache: PathBuf },
    /// Another process is downloading files of the repository.
    #[error("{repo}: another process is downloading it")]
    InUse { repo: String },
    /// A file in the cache cannot be read, written, locked, linked or removed.
    #[error("{}: cannot {doing}{}", shown(path), hint(source))]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
}

/// Advice for a full disk and for missing permissions.
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
        None => format!("is longer than {limit} bytes, and the server does not report its size"),
    }
}

/// A path for a message. Parts of it may come from a server, so control characters are escaped.
fn shown(path: &Path) -> String {
    quoted(&path.display().to_string())
}
