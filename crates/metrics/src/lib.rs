//! Scores of answers and captions, as the official evaluation codes compute them.
//!
//! A published score can be compared with another only if both come from the same computation: the same
//! tokens, the same normalisation of answers, the same sums. Every score here follows the code that its
//! benchmark publishes, including what that code does with unusual text. No model is involved.
//!
//! [`caption`] has BLEU, ROUGE-L, CIDEr and METEOR over the tokens of [`ptb`]; [`vqa`] has the accuracies of
//! VQAv2, TextVQA, OK-VQA, A-OKVQA and GQA; [`read`] reads the files that the benchmarks publish and the
//! results that are to be scored; [`relative_size`] sorts questions by the size of what they ask about.
#![forbid(unsafe_code)]

pub mod caption;
pub mod difflib;
mod error;
pub mod ptb;
mod python;
pub mod read;
pub mod relative_size;
pub mod vqa;

pub use error::{Error, Result};

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
