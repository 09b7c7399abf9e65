//! CLIP's vision transformer up to its last hidden state, every linear with up to two LoRA adapters.
//!
//! One pass serves the global picture and its tiles, where the released code makes two: rows of a batch choose their
//! adapter. `post_layernorm` is carried for its weights and not applied.
#![forbid(unsafe_code)]

mod block;
mod config;
mod vit;

pub use block::Block;
pub use config::{AdapterSpec, Config, Error, HiddenAct};
/// The crate whose operations and contexts the signatures here name.
pub use pheye_ops as ops;
/// The crate whose types the signatures here name.
pub use pheye_tensor as tensor;
pub use vit::{Saved, Vit};

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
