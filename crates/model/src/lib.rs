//! The assembled Pheye model: the vision tower over an image and its tiles, the connector, and the language
//! model with cross-attention blocks between its layers (arXiv 2501.02584).
#![forbid(unsafe_code)]

mod adapt;
mod backbone;
mod complexity;
mod config;
mod convert;
mod error;
mod flops;
pub mod generate;
mod json;
mod load;
mod log_probs;
mod look;
mod lora;
mod loss;
mod memory;
pub mod names;
mod peft;
mod pheye;
mod transformers;

pub use adapt::Changes;
pub use complexity::Complexity;
pub use config::{Config, Counts, LoraSpec, PRESETS};
pub use convert::{Cast, Conversion, OnWritten, Output, SHARD_SIZE};
pub use error::{Error, Result};
pub use flops::{Flops, Passes, TrainedParts};
pub use generate::{EarlyStopping, Ends, Generated, GenerationConfig, Hooks, OnToken};
pub use load::{CONFIG_FILE, FileLookup, WEIGHTS_FILE, is_known_backbone, is_released};
pub use lora::LoraSet;
pub use loss::{Batch, Loss, QueuedLoss, check_images, cross_spans, stack};
pub use memory::{Memory, StepShape};
pub use pheye::{Options, Pheye, Recompute};
/// Re-exported because public signatures here use its operations and contexts.
pub use pheye_ops as ops;
/// Re-exported because public signatures here use its types.
pub use pheye_tensor as tensor;
pub use transformers::vision_config;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
