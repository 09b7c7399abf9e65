//! What turns a sum of gradients into a step: the learning rate of the moment, clipping, AdamW.
//!
//! Gradients arrive as sums over tokens. The one division by the token count of the whole step happens here, just
//! before the update, so that micro-batches of unequal length weigh right.
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod adamw;
mod error;
mod schedule;

pub use adamw::{AdamWConfig, Optimizer};
pub use error::{Error, Result};
pub use schedule::{Schedule, ScheduleKind};
