//! Reads and writes checkpoints.
//!
//! Files are untrusted and disks fill up, so reading validates everything that a file claims, and writing
//! leaves the old file unchanged until the new one is complete. A [`Checkpoint`] maps safetensors, sharded
//! safetensors and torch zips and returns one tensor at a time, without a copy if no conversion is needed. A
//! [`CheckpointSource`] supplies them to a network and reports all mismatches together. [`save_safetensors`]
//! writes tensors from memory, and [`ShardedWriter`] streams tensors in pieces to one file or shards.
//! [`transformers`] reads the configuration that published folders have beside the weights.
#![deny(unsafe_code)]

mod atomic;
mod checkpoint;
mod convert;
mod dtype;
mod entry;
mod error;
mod file;
mod folder;
mod globals;
mod header;
pub mod json;
mod map;
mod mismatch;
mod names;
mod pickle;
mod save;
mod shards;
mod sniff;
mod source;
mod staged;
mod stored;
mod stream;
mod torch;
pub mod transformers;
mod value;

pub use atomic::{atomic_write, copy_atomically};
pub use checkpoint::Checkpoint;
pub use dtype::StoredDType;
pub use entry::TensorInfo;
pub use error::{Error, Result, Unusable};
pub use folder::{FOLDER_FILES, first_in};
pub use mismatch::{Fault, Mismatches, Prefix};
pub use names::NameMap;
/// Re-exported because public signatures here use its types.
pub use pheye_tensor as tensor;
pub use save::{save_safetensors, write_elements};
pub use sniff::Format;
pub use source::CheckpointSource;
pub use staged::{Opened, Staged};
pub use stored::{Stored, save_stored};
pub use stream::{Elements, Item, ShardedWriter, Written, refuse_existing};

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
