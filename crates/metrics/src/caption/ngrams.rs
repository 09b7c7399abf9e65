//! The n-grams of a caption with their counts, over numbered words.

use std::collections::HashMap;

use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::python::split;

/// The longest n-grams that BLEU and CIDEr count.
pub(super) const N: usize = 4;

/// An n-gram of up to [`N`] numbered words; the rest is [`NONE`].
pub(super) type Gram = [u32; N];

/// No word.
const NONE: u32 = u32::MAX;

/// Numbers for words, by their first occurrence.
#[derive(Default)]
pub(super) struct Words<'a>(HashMap<&'a str, u32>);

impl<'a> Words<'a> {
    /// The numbers of the words of `text`, which white space of any kind separates.
    pub(super) fn number(&mut self, text: &'a str) -> Vec<u32> {
        let next = |words: &HashMap<&str, u32>| u32::try_from(words.len()).unwrap_or(NONE);
        split(text)
            .map(|word| {
                let new = next(&self.0);
                *self.0.entry(word).or_insert(new)
            })
            .collect()
    }
}

/// The number of words in an n-gram.
pub(super) fn length(gram: &Gram) -> usize {
    gram.iter().take_while(|&&word| word != NONE).count()
}

/// The n-grams of `words` for n = 1, 2, 3, 4 with their counts, in the order of n and of first occurrence: sums
/// over them are then those of the official code to the last bit.
pub(super) fn count(words: &[u32]) -> Vec<(Gram, u32)> {
    let mut counts: Vec<(Gram, u32)> = Vec::with_capacity(N * words.len());
    let mut places: FxHashMap<Gram, usize> =
        FxHashMap::with_capacity_and_hasher(N * words.len(), FxBuildHasher);
    for n in 1..=N {
        for window in words.windows(n) {
            let mut gram = [NONE; N];
            gram[..n].copy_from_slice(window);
            let place = *places.entry(gram).or_insert(counts.len());
            match counts.get_mut(place) {
                Some((_, count)) => *count += 1,
                None => counts.push((gram, 1)),
            }
        }
    }
    counts
}
