//! A score of a corpus with that of each caption, and all of them together.

use serde::Serialize;

use super::{Tokenized, bleu, cider, cider_d, rouge_l};

/// A score of a corpus and of each of its captions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// The score of the corpus.
    pub corpus: f64,
    /// The score of each caption, in the order of the captions.
    pub each: Vec<f64>,
}

impl Score {
    /// The score whose value for a corpus is the mean over the captions; 0 without any.
    pub(super) fn mean(each: Vec<f64>) -> Score {
        let sum: f64 = each.iter().sum();
        Score { corpus: if each.is_empty() { 0.0 } else { sum / each.len() as f64 }, each }
    }
}

/// The scores that need no other program.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// BLEU-1 to BLEU-4.
    pub bleu: [Score; 4],
    /// ROUGE-L.
    pub rouge_l: Score,
    /// CIDEr-D, which pycocoevalcap and the literature call CIDEr.
    pub cider_d: Score,
    /// CIDEr without clipping and length penalty.
    pub cider: Score,
}

/// All scores of `items`. They depend on all items together: CIDEr takes document frequencies from the
/// references, so a subset has its own.
pub fn scores(items: &[Tokenized]) -> Scores {
    Scores { bleu: bleu(items), rouge_l: rouge_l(items), cider_d: cider_d(items), cider: cider(items) }
}
