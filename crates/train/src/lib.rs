//! Training: the config of a run, the training loop, and its output (checkpoints, metrics).
#![forbid(unsafe_code)]

mod checkpoint;
mod config;
mod config_error;
mod contrastive;
mod error;
mod evaluation;
mod features;
mod feed;
mod inputs;
mod interrupt;
mod learner;
mod limits;
mod lock;
mod log;
mod memory;
mod metrics;
mod network;
mod pattern;
mod plan;
mod run;
#[cfg(feature = "schema")]
mod schema;
mod seal;
mod set;
mod spikes;
mod start;
mod summary;
mod survey;
mod tensorboard;
mod trainer;

pub use checkpoint::{Checkpoints, Loaded, State};
pub use config::{
    Backbone, Config, DataConfig, EvalConfig, Language, ModelConfig, OptimConfig, ShareConfig, Task,
    TrainConfig,
};
pub use error::{Error, Result};
pub use evaluation::{Answered, Evaluate, Evaluation};
pub use feed::{content, max_tokens, mixture};
pub use inputs::Print;
pub use interrupt::Interrupt;
pub use memory::MemoryUse;
pub use metrics::{Metrics, Spike};
pub use network::Shape;
pub use pattern::matches;
/// Re-exported because public signatures here use its operations and contexts.
pub use pheye_ops as ops;
pub use plan::{Plan, PlanMemory, Texts, plan};
#[cfg(feature = "schema")]
pub use schema::{reference, schema};
pub use set::Set;
pub use start::{is_model, model_in};
pub use survey::{Standing, Survey, is_run, rows};
pub use trainer::{Event, Outcome, Start, StepReport, train};

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
