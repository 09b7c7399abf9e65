//! Pheye assembled: the vision tower over a picture and its tiles, the connector, and the language model with
//! cross-attention blocks between its own (arXiv 2501.02584).

mod backbone;
mod config;
mod error;
mod generate;
mod load;
mod loss;
mod memory;
mod pheye;

pub use config::{Config, Counts, LoraSpec, PRESETS};
pub use error::{Error, Result};
pub use generate::{EarlyStopping, Ends, Generated, GenerationConfig, Hooks, OnToken};
pub use load::{CONFIG_FILE, Named, WEIGHTS_FILE, is_known_backbone};
pub use loss::{Batch, Loss, QueuedLoss, stack};
pub use memory::{Load, Memory};
pub use pheye::{Options, Pheye, Recompute};
