//! The GPT-2 language model: learnt positions, pre-norm blocks, and an output head that is the token embedding.
//!
//! A block comes in two halves, [`Attention`] and [`Mlp`], each with its residual connection and each with forward and
//! backward, so that a caller can run layers of its own between them, such as cross-attention. The gradient flows
//! through a frozen model to the rows fed into it and to those layers.
//!
//! Sequences are packed: their rows follow each other without padding, and a [`Layout`] describes which rows
//! belong together.
#![forbid(unsafe_code)]

pub mod attention;
mod block;
mod config;
mod error;
mod gpt2;
pub mod hub;
pub mod mlp;

pub use attention::Attention;
pub use block::{Block, Saved};
pub use config::Config;
pub use error::{Error, Result};
pub use gpt2::Gpt2;
pub use mlp::Mlp;
/// Re-exported because public signatures here use its operations and contexts.
pub use pheye_ops as ops;
/// The rows of a packed batch, and the keys and values of past tokens.
pub use pheye_ops::attention::{Cache, Layout};
/// Re-exported because public signatures here use its types.
pub use pheye_tensor as tensor;
/// Re-exported because public signatures here use its types.
pub use pheye_weights as weights;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
