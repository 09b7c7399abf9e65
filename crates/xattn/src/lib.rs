//! What Pheye adds between its two frozen backbones: the connector that makes one sequence of image tokens of all
//! tiles, and the dense cross-attention blocks that let the language model read it (arXiv 2501.02584, section 3).
#![forbid(unsafe_code)]

mod block;
mod config;
mod connector;

pub use block::{Block, Saved};
pub use config::{Config, Error};
pub use connector::{Connector, Saved as ConnectorSaved};
/// The crate whose operations and contexts the signatures here name.
pub use pheye_ops as ops;
/// The crate whose types the signatures here name.
pub use pheye_tensor as tensor;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
