//! What turns a sum of gradients into a step: the learning rate of the moment, clipping, AdamW.
//!
//! Gradients arrive as sums over tokens. The one division by the token count of the whole step happens here, just
//! before the update, so that micro-batches of unequal length weigh right.
#![forbid(unsafe_code)]

mod adamw;
mod error;
mod schedule;

pub use adamw::{AdamWConfig, Optimizer};
pub use error::{Error, Result};
/// Re-exported because public signatures here use its operations and contexts.
pub use pheye_ops as ops;
/// Re-exported because public signatures here use its types.
pub use pheye_tensor as tensor;
pub use schedule::{Schedule, ScheduleKind};

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
