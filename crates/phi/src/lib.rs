//! The Phi language model (1, 1.5, 2): parallel attention and MLP behind one LayerNorm, partial rotary positions.
//!
//! Sequences are packed: their rows follow each other without padding, and a [`Layout`] describes which rows
//! belong together. A batch of prompts of different lengths therefore costs no padding and gives the same
//! results as running the prompts one by one.
#![forbid(unsafe_code)]

mod block;
mod config;
mod phi;

pub use block::{Block, Saved};
pub use config::{Config, Error};
/// Re-exported because public signatures here use its operations and contexts.
pub use pheye_ops as ops;
/// The rows of a packed batch, and the keys and values of past tokens.
pub use pheye_ops::attention::{Cache, Layout};
/// Re-exported because public signatures here use its types.
pub use pheye_tensor as tensor;
pub use phi::Phi;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
