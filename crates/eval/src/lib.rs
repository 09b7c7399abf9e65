//! Evaluates a model: comparison with golden data, accuracy on a question set, and the benchmarks of the paper.
#![forbid(unsafe_code)]

mod accuracy;
pub mod benchmark;
mod case;
mod error;
mod generate;
mod golden;
pub mod grown;
mod network;
mod stage;
mod verify;

pub use accuracy::{Accuracy, AccuracyOptions, Asked, Judged, accuracy};
pub use error::{Error, Result};
/// Re-exported because public signatures here use its metrics and ids.
pub use pheye_metrics as metrics;
/// Re-exported because public signatures here use its operations and contexts.
pub use pheye_ops as ops;
pub use stage::Stage;
pub use verify::{Report, verify};

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
