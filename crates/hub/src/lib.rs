//! Files of Hugging Face repositories: from the cache that all Hugging Face libraries share, or downloaded
//! into it.
//!
//! The layout is that of Python's `huggingface_hub`, so each of the two finds what the other has downloaded:
//!
//! ```text
//! models--OWNER--NAME/refs/REVISION           the commit of a branch or tag
//!                     snapshots/COMMIT/FILE   a link to ../../blobs/ETAG
//!                     blobs/ETAG              contents; ETAG is their SHA-256, or git's SHA-1 of small files
//!                     blobs/ETAG.incomplete   the first bytes of contents, to be continued
//! .locks/models--OWNER--NAME/ETAG.lock        locked by the process that downloads
//! ```
//!
//! Cached files need no network, and all files of a [`Snapshot`] are of one commit. The client uses only the
//! `resolve` part of the hub's HTTP interface, which mirrors support too.
//!
//! ```no_run
//! let hub = pheye_hub::Hub::new(pheye_hub::Settings::from_env()?);
//! let mut phi = hub.snapshot("microsoft/phi-1_5".parse()?);
//! let tokenizer = phi.get("tokenizer.json", &mut |_| ())?;
//! # Ok::<(), pheye_hub::Error>(())
//! ```
#![forbid(unsafe_code)]

mod cache;
mod digest;
mod error;
mod fetch;
mod http;
mod limits;
mod repo;
mod settings;
mod snapshot;

pub use cache::{Cached, cached, list, remove};
pub use error::{Error, Result};
pub use limits::Limits;
pub use repo::Repo;
pub use settings::{Settings, Token};
pub use snapshot::{Hub, Snapshot};

/// The progress of a download, passed to the caller's [`Watch`] at its start and after each piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Another process is downloading the same contents, and this one waits for it.
    Waiting {
        /// The name of the file in the repository.
        file: &'a str,
    },
    /// The bytes received so far, including those of an earlier attempt.
    Bytes {
        /// The name of the file in the repository.
        file: &'a str,
        /// The number of bytes received.
        done: u64,
        /// The total number of bytes, if the server reports it.
        total: Option<u64>,
    },
    /// The connection was interrupted, and the download continues where it stopped.
    Resumed {
        /// The name of the file in the repository.
        file: &'a str,
        /// The number of bytes received.
        done: u64,
    },
    /// The file is complete, and its checksum matches if there is one.
    Done {
        /// The name of the file in the repository.
        file: &'a str,
    },
}

/// A callback that receives the [`Progress`].
pub type Watch<'a> = &'a mut dyn FnMut(Progress<'_>);

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
