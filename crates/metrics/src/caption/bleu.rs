//! BLEU-1 to BLEU-4 of a corpus and of each caption, with the closest reference length.

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::ngrams::{Gram, N, Words, count, length};
use super::{Score, Tokenized};

/// Added to the number of correct n-grams and of words, so that no precision is 0 ...
const TINY: f64 = 1e-15;
/// ... and to what they are divided by, so that it is not 0.
const SMALL: f64 = 1e-9;

/// What BLEU sums over captions.
#[derive(Clone, Copy, Default)]
struct Counts {
    /// Words of the captions.
    words: usize,
    /// Words of the reference that is closest in length, the shorter one of two.
    reference: usize,
    /// n-grams of the captions, for each n.
    guessed: [usize; N],
    /// Those that a reference has, each counted at most as often as in one reference.
    correct: [usize; N],
}

/// BLEU-1, BLEU-2, BLEU-3 and BLEU-4. The score of the corpus is not the mean of the captions' scores: it
/// divides sums.
pub fn bleu(items: &[Tokenized]) -> [Score; N] {
    let counts: Vec<Counts> = items.par_iter().map(counts).collect();
    let mut all = Counts::default();
    for one in &counts {
        all.words += one.words;
        all.reference += one.reference;
        for n in 0..N {
            all.guessed[n] += one.guessed[n];
            all.correct[n] += one.correct[n];
        }
    }
    let each: Vec<[f64; N]> = counts.iter().map(formula).collect();
    let all = formula(&all);
    std::array::from_fn(|n| Score { corpus: all[n], each: each.iter().map(|scores| scores[n]).collect() })
}

fn counts(item: &Tokenized) -> Counts {
    let mut numbers = Words::default();
    let caption = numbers.number(&item.caption);
    let references: Vec<Vec<u32>> = item.references.iter().map(|text| numbers.number(text)).collect();
    let mut most: FxHashMap<Gram, u32> = FxHashMap::default();
    for (gram, n) in references.iter().flat_map(|words| count(words)) {
        let most = most.entry(gram).or_default();
        *most = n.max(*most);
    }
    let mut correct = [0; N];
    for (gram, n) in count(&caption) {
        correct[length(&gram) - 1] += n.min(most.get(&gram).copied().unwrap_or(0)) as usize;
    }
    let words = caption.len();
    let closest = references.iter().map(|r| (r.len().abs_diff(words), r.len())).min();
    Counts {
        words,
        reference: closest.map_or(0, |(_, len)| len),
        guessed: std::array::from_fn(|n| words.saturating_sub(n)),
        correct,
    }
}

/// The geometric mean of the precisions up to each n, times the brevity penalty.
fn formula(counts: &Counts) -> [f64; N] {
    let ratio = (counts.words as f64 + TINY) / (counts.reference as f64 + SMALL);
    let penalty = if ratio < 1.0 { (1.0 - 1.0 / ratio).exp() } else { 1.0 };
    let mut product = 1.0;
    std::array::from_fn(|n| {
        product *= (counts.correct[n] as f64 + TINY) / (counts.guessed[n] as f64 + SMALL);
        f64::powf(product, 1.0 / (n + 1) as f64) * penalty
    })
}
