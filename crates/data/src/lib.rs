//! Batches of images and texts from files, in a reproducible order.
//!
//! A [`Source`] is a data set as it is published, or a [`Manifest`] of this project's own form, whose rows
//! stay on disk. A [`Mixture`] of sources defines the order of the samples,
//! a [`Loader`] makes a [`Batch`] of any range of that order, and [`Prefetch`] prepares batches in advance.
//! Nothing here has state that a resumed run must restore: shuffling, the choice of questions and
//! augmentation follow from the seed and the position alone.
#![forbid(unsafe_code)]

mod augment;
mod check;
mod error;
mod image_cache;
mod index;
mod index_cache;
mod json_stream;
mod loader;
mod manifest;
mod mixture;
mod prefetch;
mod prints;
mod published;
mod random;
mod shared;
mod source;
pub mod store;
mod summary;

pub use augment::Augmentation;
pub use check::{Check, CheckOptions, Faults, Lengths, check};
pub use error::{Error, Result};
pub use index::LeftOut;
pub use index_cache::index_folder;
pub use loader::{Batch, Encode, Encoded, Example, Image, Loader, LoaderOptions, OnBroken, Sequence};
pub use manifest::{Content, Item, Manifest};
pub use mixture::{Draw, Mixture};
pub use prefetch::Prefetch;
pub use source::{Format, Input, PartConfig, Prompt, Source, SourceConfig, Turns};
pub use store::Store;
pub use summary::{PartSummary, Summary};

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
