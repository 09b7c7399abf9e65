//! ROUGE-L: an F-measure of the longest common subsequence.

use rayon::prelude::*;

use super::{Score, Tokenized};

/// How much more recall counts than precision.
const BETA: f64 = 1.2;

/// ROUGE-L. Tokens are separated by single spaces, so that an empty text has one empty token. Precision and
/// recall are the largest over the references, each for itself. The corpus has the mean.
pub fn rouge_l(items: &[Tokenized]) -> Score {
    Score::mean(items.par_iter().map(of_item).collect())
}

fn of_item(item: &Tokenized) -> f64 {
    let caption: Vec<&str> = item.caption.split(' ').collect();
    let (mut precision, mut recall) = (0.0f64, 0.0f64);
    for reference in &item.references {
        let reference: Vec<&str> = reference.split(' ').collect();
        let common = common_subsequence(&caption, &reference) as f64;
        precision = precision.max(common / caption.len() as f64);
        recall = recall.max(common / reference.len() as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    let square = BETA * BETA;
    ((1.0 + square) * precision * recall) / (recall + square * precision)
}

/// The length of the longest common subsequence.
fn common_subsequence(a: &[&str], b: &[&str]) -> usize {
    // The lengths for all beginnings of b: with the previous token of a, and with this one.
    let mut before = vec![0; b.len() + 1];
    let mut here = before.clone();
    for token in a {
        for (j, other) in b.iter().enumerate() {
            here[j + 1] = if token == other { before[j] + 1 } else { before[j + 1].max(here[j]) };
        }
        std::mem::swap(&mut before, &mut here);
    }
    before[b.len()]
}
