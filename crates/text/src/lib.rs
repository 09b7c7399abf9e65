//! Text to token ids and back, and the prompt template for an instruction.
//!
//! The released models were trained with one exact prompt. It is the default of [`PromptTemplate`], which a
//! config may replace; training and generation use the same two functions for their ids.
#![forbid(unsafe_code)]

mod error;
#[cfg(feature = "tokenizer")]
mod example;
#[cfg(feature = "tokenizer")]
mod fault;
#[cfg(feature = "tokenizer")]
mod growth;
#[cfg(feature = "tokenizer")]
mod inspect;
mod prompt;
mod stop;
#[cfg(feature = "tokenizer")]
mod stream;
#[cfg(feature = "tokenizer")]
mod tokenizer;

pub use error::{Error, Result};
#[cfg(feature = "tokenizer")]
pub use example::{Example, IGNORED};
pub use prompt::PromptTemplate;
pub use stop::{Until, find_stop};
#[cfg(feature = "tokenizer")]
pub use stream::TextStream;
#[cfg(feature = "tokenizer")]
pub use tokenizer::Tokenizer;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
