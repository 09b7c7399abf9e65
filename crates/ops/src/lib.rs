//! The operations of Pheye, each with a hand-written forward and backward; there is no autograd.
//!
//! `forward(cx, x, p) -> (y, Saved)` and `backward(cx, &saved, dy, p, Option<&mut Grads>) -> dx`. `Saved` holds what
//! backward needs and nothing else; for inference, drop it. Activations are assigned (`=`), parameter gradients
//! accumulated (`+=`). The gradient of a frozen parameter is never computed.
//!
//! Each operation is a folder: `mod.rs` has the public functions, the shape checks and the dispatch on the device;
//! `cpu.rs` and `gpu.rs` have the two arms, each with forward beside backward. Small operations, most of them
//! elementwise, are one file. Helpers of the arms of all operations are in the modules `cpu` and `gpu`.
#![forbid(unsafe_code)]

mod ahead;
mod cpu;
mod cx;
mod error;
mod gpu;
mod init;

pub mod adamw;
pub mod add;
pub mod argmax;
pub mod attention;
pub mod contrastive;
pub mod cross_entropy;
pub mod elementwise;
pub mod embedding;
pub mod gelu;
pub mod layernorm;
pub mod linear;
pub mod lora;
pub mod patch_embed;
pub mod pool;
pub mod rotary;
pub mod rows;
pub mod sampling;
pub mod tile_embed;
pub mod topk;

pub use ahead::{PendingTensor, Uploads};
pub use cx::{Cx, Graphs};
pub use error::{Error, Result};
pub use init::RandomInit;
/// The crate of the types in the signatures of this one.
pub use pheye_tensor as tensor;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
