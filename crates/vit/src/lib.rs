//! CLIP's vision transformer up to its last hidden state. Every linear layer has up to two LoRA adapters.
//!
//! One pass processes the global image and its tiles: each row of the batch selects its adapter. (The released code
//! makes two passes.) `post_layernorm` is loaded and saved with the other weights but applied only by
//! [`Vit::class_token`].
#![forbid(unsafe_code)]

mod block;
mod class_token;
mod config;
mod modules;
mod vit;

pub use block::Block;
pub use class_token::Saved as ClassTokenSaved;
pub use config::{AdapterSpec, Config, Error, HiddenAct};
/// Re-exported because public signatures here use its operations and contexts.
pub use pheye_ops as ops;
/// Re-exported because public signatures here use its types.
pub use pheye_tensor as tensor;
pub use vit::{Saved, Vit};

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
