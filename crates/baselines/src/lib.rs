//! The ten systems of the preliminary experiments of Pheye's paper (arXiv 2501.02584, Appendix B): a CLIP vision tower,
//! a frozen GPT-2, and one of several ways in which GPT-2 reads the image.
//!
//! A system is a [`Baseline`]: the tower, a [`Connector`] from the tower's last hidden state to the rows that the
//! language model reads (the media), and GPT-2. In FROMAGe and LLaVA these rows stand before the text; in SmallCap and
//! all systems on ViT-L/14, every layer of GPT-2 attends to them. [`Config::preset`] has the ten published
//! configurations.
//!
//! A connector of your own is one more part of [`Connector`], where forward and backward stand beside each other, and a
//! key in [`Config`]; loss, generation and checkpoints stay as they are.
#![forbid(unsafe_code)]

mod baseline;
mod config;
mod connector;
mod decode;
mod error;
mod folder;
mod language;
mod packed;

pub use baseline::Baseline;
pub use config::{Config, Counts, PRESETS, Preset, System};
pub use connector::{Connector, FeaturesSaved, MediaSaved};
pub use decode::Images;
pub use error::{Error, Result};
pub use folder::{CONFIG_FILE, WEIGHTS_FILE, is_baseline, stored};
/// Re-exported because public signatures here use its batches, losses and options of generation.
pub use pheye_model as model;
/// Re-exported because public signatures here use its operations and contexts.
pub use pheye_ops as ops;
/// Re-exported because public signatures here use its types.
pub use pheye_tensor as tensor;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
