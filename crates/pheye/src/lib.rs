//! Runs and trains Pheye, a small vision-language model that reads fine detail (arXiv 2501.02584).
//!
//! Each module is a separate crate that can be used alone. This crate collects them under one name, and
//! combines model, tokenizer and image preprocessing in an `Assistant`.
//!
//! With feature `ask`:
//!
//! ```no_run
//! # #[cfg(feature = "ask")] {
//! use pheye::Assistant;
//! use pheye::model::{GenerationConfig, Options};
//! use pheye::ops::Cx;
//!
//! let model = Assistant::load("models/nano".as_ref(), Options::default())?;
//! let image = pheye::image::open("picture.png", &Default::default())?;
//! let how = GenerationConfig::greedy(16);
//! let answer = model.answer(&Cx::cpu(), &image, "what color is the shape?", &how)?;
//! println!("{}", answer.text);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "ask")]
mod ask;
#[cfg(feature = "ask")]
mod captioner;
#[cfg(feature = "ask")]
mod encode;
mod error;
#[cfg(feature = "ask")]
mod evaluator;
#[cfg(feature = "hub")]
pub mod hub;
mod located;

#[cfg(feature = "ask")]
pub use ask::{Answer, Assistant, Finish, Look, OnText, Seen, Times};
#[cfg(feature = "ask")]
pub use captioner::Captioner;
#[cfg(feature = "ask")]
pub use encode::encoder;
pub use error::{Error, Result};
#[cfg(feature = "ask")]
pub use evaluator::{LONGEST_ANSWER, evaluator, png, spread};
pub use located::ModelFiles;
pub use pheye_baselines as baselines;
pub use pheye_data as data;
pub use pheye_eval as eval;
pub use pheye_gpt2 as gpt2;
pub use pheye_image as image;
pub use pheye_metrics as metrics;
pub use pheye_model as model;
#[cfg(feature = "nano")]
pub use pheye_nano as nano;
pub use pheye_ops as ops;
pub use pheye_optim as optim;
pub use pheye_phi as phi;
pub use pheye_resample as resample;
pub use pheye_tensor as tensor;
pub use pheye_text as text;
pub use pheye_train as train;
pub use pheye_vit as vit;
pub use pheye_weights as weights;
pub use pheye_xattn as xattn;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
