//! The layers that Pheye adds between its two frozen backbones (arXiv 2501.02584, section 3): the connector, which
//! joins the image tokens of all tiles to one sequence, and the dense cross-attention blocks, through which the
//! language model reads that sequence.
#![forbid(unsafe_code)]

mod block;
mod config;
mod connector;

pub use block::{Block, Saved};
pub use config::{Config, Error};
pub use connector::{Connector, Saved as ConnectorSaved};
/// Re-exported because public signatures here use its operations and contexts.
pub use pheye_ops as ops;
/// Re-exported because public signatures here use its types.
pub use pheye_tensor as tensor;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
