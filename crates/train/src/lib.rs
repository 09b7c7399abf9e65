//! Training: what a run is (its config), what it leaves behind (checkpoints, metrics), and the loop between.

mod checkpoint;
mod config;
mod config_error;
mod error;
mod interrupt;
mod metrics;
mod pattern;
mod tensorboard;

pub use checkpoint::{Checkpoints, Loaded, State};
pub use config::{
    Config, Content, DataConfig, EvalConfig, ModelConfig, OnBroken, OptimConfig, Task, TrainConfig,
};
pub use error::{Error, Result};
pub use interrupt::Interrupt;
pub use metrics::Metrics;
pub use pattern::matches;
