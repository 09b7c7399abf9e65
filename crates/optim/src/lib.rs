//! The optimizer: learning-rate schedule, gradient clipping and AdamW.
//!
//! Gradients are sums over tokens. They are divided once, by the number of target tokens of the whole step,
//! just before the update, so that every token has the same weight even if micro-batches differ in length.
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
