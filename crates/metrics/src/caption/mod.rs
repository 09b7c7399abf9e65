//! Scores of captions: BLEU, ROUGE-L, CIDEr and METEOR, as the package pycocoevalcap computes them.
//!
//! They compare token sequences, in which tokens are separated by one space ([`crate::ptb`]). Figures that the
//! literature calls CIDEr are [`cider_d`]; [`cider`] is the formula without clipping and length penalty.

mod bleu;
mod cider;
mod meteor;
mod ngrams;
mod rouge;
mod scores;

pub use bleu::bleu;
pub use cider::{cider, cider_d};
pub use meteor::meteor;
pub use rouge::rouge_l;
pub use scores::{Score, Scores, scores};

/// A caption with its references, all as tokens separated by one space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenized {
    /// The caption to score.
    pub caption: String,
    /// The captions that people wrote, at least one.
    pub references: Vec<String>,
}
