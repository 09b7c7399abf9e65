//! The layers that Pheye adds between its two frozen backbones (arXiv 2501.02584, section 3): the connector, which
//! joins the image tokens of all tiles to one sequence, and the dense cross-attention blocks, through which the
//! language model reads that sequence. A block is an [`Attention`] and a [`FeedForward`]; the attention alone, with
//! other names, heads and scale, is the cross-attention of SmallCap ([`AttentionConfig::gpt2`]).
#![forbid(unsafe_code)]

mod attention;
mod block;
mod config;
mod connector;
mod feed_forward;

pub use attention::{Attention, AttentionConfig, Names, Saved as AttentionSaved};
pub use block::{Block, Saved};
pub use config::{Config, Error};
pub use connector::{Connector, Saved as ConnectorSaved};
pub use feed_forward::{FeedForward, Saved as FeedForwardSaved};
/// Re-exported because public signatures here use its operations and contexts.
pub use pheye_ops as ops;
/// Re-exported because public signatures here use its types.
pub use pheye_tensor as tensor;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
