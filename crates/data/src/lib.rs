//! Batches of images and texts from files, in a reproducible order.
//!
//! A [`Manifest`] lists the items of a data set, a [`Mixture`] of manifests defines the order of the samples,
//! a [`Loader`] makes a [`Batch`] of any range of that order, and [`Prefetch`] prepares batches in advance.
//! Nothing here has state that a resumed run must restore: shuffling, the choice of questions and
//! augmentation follow from the seed and the position alone.
#![forbid(unsafe_code)]

mod augment;
mod error;
mod loader;
mod manifest;
mod mixture;
mod prefetch;
mod prints;
mod random;
pub mod store;

pub use augment::Augmentation;
pub use error::{Error, Result};
pub use loader::{Batch, Encode, Encoded, Example, Image, Loader, LoaderOptions, OnBroken, Sequence};
pub use manifest::{Content, Item, Manifest};
pub use mixture::{Draw, Mixture};
pub use prefetch::Prefetch;
pub use store::Store;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
