//! Resamplers, which attend from a fixed number of learnt queries to the image tokens, so that a language model reads
//! the same number of tokens for every image:
//!
//! - [`Monkey`], one cross-attention with position tables, of Monkey (arXiv 2311.06607) and Qwen-VL (arXiv 2308.12966)
//! - [`Perceiver`], several layers of attention and MLP, of Flamingo (arXiv 2204.14198)
//!
//! [`Resampler`] is either of the two, by its [`Config`]. Images are packed: the tokens of all images of a batch follow
//! each other, and `lengths` says how many each has.
#![forbid(unsafe_code)]

mod batch;
mod config;
mod layer;
mod monkey;
mod perceiver;
mod positions;
mod resampler;

pub use config::{Config, Error, MonkeyConfig, PerceiverConfig};
pub use monkey::{Monkey, Saved as MonkeySaved};
pub use perceiver::{Perceiver, Saved as PerceiverSaved};
/// Re-exported because public signatures here use its operations and contexts.
pub use pheye_ops as ops;
/// Re-exported because public signatures here use its types.
pub use pheye_tensor as tensor;
pub use resampler::{Resampler, Saved};

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
