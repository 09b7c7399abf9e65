//! CLIP's vision transformer up to its last hidden state, every linear with up to two LoRA adapters.
//!
//! One pass serves the global picture and its tiles, where the released code makes two: rows of a batch choose their
//! adapter. `post_layernorm` is carried for its weights and not applied.
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod block;
mod config;
mod vit;

pub use block::Block;
pub use config::{AdapterSpec, Config, Error, HiddenAct};
pub use vit::{Saved, Vit};
