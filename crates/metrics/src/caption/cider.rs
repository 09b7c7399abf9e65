//! CIDEr-D and plain CIDEr: similarity of tf-idf vectors of n-grams.

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::ngrams::{Gram, N, Words, count, length};
use super::{Score, Tokenized};

/// The standard deviation of the Gaussian penalty on the difference in length.
const SIGMA: f64 = 6.0;
/// Scores are similarities times this.
const SCALE: f64 = 10.0;

/// CIDEr-D, as pycocoevalcap computes it under the name CIDEr: weights of the caption are clipped to those of
/// the reference, and a Gaussian penalises the difference in the number of bigrams. The corpus has the mean
/// over the captions; a single caption has 0, because every n-gram is then in all documents.
pub fn cider_d(items: &[Tokenized]) -> Score {
    mean_similarity(items, true)
}

/// CIDEr: the cosine of the tf-idf vectors, without clipping and penalty. No common package computes it.
pub fn cider(items: &[Tokenized]) -> Score {
    mean_similarity(items, false)
}

/// The n-grams of a caption and of its references.
struct Counted {
    caption: Vec<(Gram, u32)>,
    references: Vec<Vec<(Gram, u32)>>,
}

/// The tf-idf vectors of a text, one for each n, with their Euclidean norms.
struct Vectors {
    weights: Vec<(Gram, f64)>,
    norms: [f64; N],
    bigrams: f64,
}

fn mean_similarity(items: &[Tokenized], clipped: bool) -> Score {
    let counted = counted(items);
    let frequencies = document_frequencies(&counted);
    let documents = (items.len() as f64).ln();
    let vectors = |counts: &[(Gram, u32)]| vectors(counts, &frequencies, documents);
    let of_item = |item: &Counted| {
        let caption = vectors(&item.caption);
        let mut sums = [0.0; N];
        for reference in &item.references {
            let similar = similarity(&caption, &vectors(reference), clipped);
            sums.iter_mut().zip(similar).for_each(|(sum, value)| *sum += value);
        }
        let mean = sums.iter().sum::<f64>() / N as f64;
        mean / item.references.len().max(1) as f64 * SCALE
    };
    Score::mean(counted.par_iter().map(of_item).collect())
}

/// Counts n-grams over words numbered for the whole corpus.
fn counted(items: &[Tokenized]) -> Vec<Counted> {
    let mut numbers = Words::default();
    let mut number = |text| numbers.number(text);
    let numbered: Vec<(Vec<u32>, Vec<Vec<u32>>)> = items
        .iter()
        .map(|item| (number(&item.caption), item.references.iter().map(|text| number(text)).collect()))
        .collect();
    let count_all = |(caption, references): &(Vec<u32>, Vec<Vec<u32>>)| Counted {
        caption: count(caption),
        references: references.iter().map(|words| count(words)).collect(),
    };
    numbered.par_iter().map(count_all).collect()
}

/// In how many images each n-gram is part of a reference.
fn document_frequencies(items: &[Counted]) -> FxHashMap<Gram, u32> {
    let of_item = |item: &Counted| {
        let mut grams: Vec<Gram> = item.references.iter().flatten().map(|(gram, _)| *gram).collect();
        grams.sort_unstable();
        grams.dedup();
        grams
    };
    let grams: Vec<Vec<Gram>> = items.par_iter().map(of_item).collect();
    let mut frequencies = FxHashMap::default();
    for gram in grams.into_iter().flatten() {
        *frequencies.entry(gram).or_default() += 1;
    }
    frequencies
}

fn vectors(counts: &[(Gram, u32)], frequencies: &FxHashMap<Gram, u32>, documents: f64) -> Vectors {
    let mut norms = [0.0; N];
    let mut bigrams = 0.0;
    let weigh = |&(gram, n): &(Gram, u32)| {
        let frequency = f64::from(frequencies.get(&gram).copied().unwrap_or(0));
        let weight = f64::from(n) * (documents - frequency.max(1.0).ln());
        norms[length(&gram) - 1] += weight * weight;
        if length(&gram) == 2 {
            bigrams += f64::from(n);
        }
        (gram, weight)
    };
    let weights = counts.iter().map(weigh).collect();
    Vectors { weights, norms: norms.map(f64::sqrt), bigrams }
}

/// The similarity for each n.
fn similarity(caption: &Vectors, reference: &Vectors, clipped: bool) -> [f64; N] {
    let of_reference: FxHashMap<&Gram, f64> = reference.weights.iter().map(|(gram, w)| (gram, *w)).collect();
    let mut values = [0.0; N];
    for (gram, own) in &caption.weights {
        let other = of_reference.get(gram).copied().unwrap_or(0.0);
        values[length(gram) - 1] += if clipped { own.min(other) } else { *own } * other;
    }
    let apart = caption.bigrams - reference.bigrams;
    let penalty = if clipped { (-(apart * apart) / (2.0 * SIGMA * SIGMA)).exp() } else { 1.0 };
    std::array::from_fn(|n| {
        let norms = caption.norms[n] * reference.norms[n];
        if norms == 0.0 { values[n] * penalty } else { values[n] / norms * penalty }
    })
}
