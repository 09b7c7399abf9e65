//! Training: what a run is (its config), what it leaves behind (checkpoints, metrics), and the loop between.
#![forbid(unsafe_code)]

mod checkpoint;
mod config;
mod config_error;
mod contrastive;
mod error;
mod feed;
mod interrupt;
mod learner;
mod metrics;
mod pattern;
mod tensorboard;
mod trainer;

pub use checkpoint::{Checkpoints, Loaded, State};
pub use config::{Config, DataConfig, EvalConfig, ModelConfig, OptimConfig, Task, TrainConfig};
pub use error::{Error, Result};
pub use interrupt::Interrupt;
pub use metrics::Metrics;
pub use pattern::matches;
pub use trainer::{Event, Outcome, Start, StepReport, train};
