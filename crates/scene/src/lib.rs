//! Synthetic images with words, for training and testing models that read: words over textures and photographs,
//! with questions, answers, captions and boxes.
//!
//! Scene `i` is a function of the options and `i` alone, so scenes can be made in any order and in parallel, and
//! a longer data set begins with the scenes of a shorter one. The heights of the letters are log-uniform, so
//! that a test can show which resolution a text needs.
#![forbid(unsafe_code)]

mod background;
mod caption;
mod color;
mod effects;
mod error;
mod font;
mod generator;
mod layout;
mod lexicon;
mod mask;
mod options;
mod paint;
mod questions;
mod random;
mod scene;

pub use error::{Error, Result};
pub use generator::Generator;
pub use options::Options;
pub use scene::{Kind, Qa, Scene, Sign, Word};

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
