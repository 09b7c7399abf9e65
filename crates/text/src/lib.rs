//! Text to token ids and back, and the prompt that wraps an instruction.
//!
//! The released models were trained on one exact wording, so the prompt lives here, beside the tokenizer, as plain
//! data that a config may replace; training and generation take their ids from the same two functions.
#![forbid(unsafe_code)]

mod error;
mod prompt;
mod stream;
mod tokenizer;

pub use error::{Error, Result};
pub use prompt::{Example, IGNORED, PromptTemplate};
pub use stream::TextStream;
pub use tokenizer::Tokenizer;
