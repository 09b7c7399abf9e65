//! From images and sentences on disk to batches, in an order that is a function of a seed and a counter.
//!
//! A [`Manifest`] lists what there is, a [`Mixture`] of manifests puts it in order, a [`Loader`] turns any stretch of
//! that order into a [`Batch`], and [`Prefetch`] does so ahead of time. Nothing here has a state that a resumed run
//! would have to restore: shuffling, the choice of questions and augmentation all follow from the seed and the
//! position.
#![forbid(unsafe_code)]

mod archive;
mod augment;
mod error;
mod loader;
mod manifest;
mod mixture;
mod prefetch;
mod prints;
mod random;
mod store;

pub use augment::Augmentation;
pub use error::{Error, Result};
pub use loader::{Batch, Encode, Encoded, Example, Loader, LoaderOptions, OnBroken, Picture, Sequence};
pub use manifest::{Content, Item, Manifest};
pub use mixture::{Draw, Mixture};
pub use prefetch::Prefetch;
pub use store::Store;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
