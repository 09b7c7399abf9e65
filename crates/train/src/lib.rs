//! Training: the config of a run, the training loop, and its output (checkpoints, metrics).
#![forbid(unsafe_code)]

mod checkpoint;
mod config;
mod config_error;
mod contrastive;
mod error;
mod feed;
mod inputs;
mod interrupt;
mod learner;
mod lock;
mod metrics;
mod pattern;
mod run;
mod seal;
mod tensorboard;
mod trainer;

pub use checkpoint::{Checkpoints, Loaded, State};
pub use config::{Config, DataConfig, EvalConfig, ModelConfig, OptimConfig, Task, TrainConfig};
pub use error::{Error, Result};
pub use feed::{content, max_tokens, mixture};
pub use inputs::Print;
pub use interrupt::Interrupt;
pub use metrics::Metrics;
pub use pattern::matches;
/// Re-exported because public signatures here use its operations and contexts.
pub use pheye_ops as ops;
pub use trainer::{Event, Outcome, Start, StepReport, train};

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
