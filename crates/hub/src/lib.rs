//! Files of Hugging Face repositories: from the cache that all Hugging Face libraries share, or downloaded into it.
//!
//! The layout is that of Python's `huggingface_hub`, so what either has fetched the other finds:
//!
//! ```text
//! models--OWNER--NAME/refs/REVISION           the commit that a branch or tag was at
//!                     snapshots/COMMIT/FILE   a link to ../../blobs/ETAG
//!                     blobs/ETAG              contents; ETAG is their SHA-256, or git's SHA-1 of small files
//!                     blobs/ETAG.incomplete   the beginning of contents, to be continued
//! .locks/models--OWNER--NAME/ETAG.lock        held by who downloads
//! ```
//!
//! What is in the cache is taken from there without a question to the network, and all files of a [`Snapshot`] are of
//! one commit. The `resolve` part of the hub's HTTP interface is all that is spoken; mirrors have it too.
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

pub use cache::cached;
pub use error::{Error, Result};
pub use limits::Limits;
pub use repo::Repo;
pub use settings::{Settings, Token};
pub use snapshot::{Hub, Snapshot};

/// How far a download is; given to the caller's watcher at its begin and after each piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Another process downloads the same contents; this one waits for it.
    Waiting {
        /// The file, as the repository names it.
        file: &'a str,
    },
    /// Bytes that have arrived, those of an earlier attempt included.
    Bytes {
        /// The file, as the repository names it.
        file: &'a str,
        /// Bytes there.
        done: u64,
        /// Bytes there will be, where the server says it.
        total: Option<u64>,
    },
    /// The connection was cut; the download goes on where it stopped.
    Resumed {
        /// The file, as the repository names it.
        file: &'a str,
        /// Bytes there.
        done: u64,
    },
    /// The file is complete and its checksum right, where there is one.
    Done {
        /// The file, as the repository names it.
        file: &'a str,
    },
}

/// Who is told of [`Progress`].
pub type Watch<'a> = &'a mut dyn FnMut(Progress<'_>);

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
