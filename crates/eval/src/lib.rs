//! Evaluates a model: comparison with golden data, and accuracy on a question set.
#![forbid(unsafe_code)]

mod accuracy;
mod case;
mod error;
mod generate;
mod golden;
mod stage;
mod verify;

pub use accuracy::{Accuracy, AccuracyOptions, Asked, Judged, accuracy};
pub use error::{Error, Result};
/// Re-exported because public signatures here use its operations and contexts.
pub use pheye_ops as ops;
pub use stage::Stage;
pub use verify::{Report, verify};

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
