//! Counter-based random numbers: a function of the seed, a purpose and a counter, without state.

use pheye_cpu::philox::{philox4x32_10, words as halves};

/// The purpose of random numbers; each purpose has its own stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// Mixing the sources of an epoch.
    Mix = 1,
    /// Shuffling a source.
    Shuffle,
    /// Choosing questions.
    Questions,
    /// Augmentation.
    Augment,
    /// Choosing an instruction to describe an image.
    Prompt,
}

/// Four random 32-bit words for item `item` in pass `pass`.
pub(crate) fn draw(seed: u64, purpose: Purpose, item: u32, pass: u64) -> [u32; 4] {
    let [lo, hi] = halves(pass);
    philox4x32_10([item, purpose as u32, lo, hi], halves(seed))
}

/// Maps a random word to a number below `n`.
pub(crate) fn below(word: u32, n: u32) -> u32 {
    ((u64::from(word) * u64::from(n)) >> 32) as u32
}

/// A random permutation of 0..n whose elements can be computed individually.
///
/// A Feistel network with Philox as round function permutes the next power of four; a result that is not
/// below `n` is permuted again until it is (cycle walking). This takes fewer than four applications on
/// average.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permutation {
    n: u64,
    half: u32,
    key: [u32; 2],
    tag: u32,
    pass: u64,
}

const ROUNDS: u32 = 8;

impl Permutation {
    /// The permutation of pass `pass`; `which` distinguishes permutations of the same purpose.
    pub(crate) fn new(n: usize, seed: u64, purpose: Purpose, which: usize, pass: u64) -> Permutation {
        let bits = (n as u64).next_power_of_two().trailing_zeros();
        let half = bits.div_ceil(2).max(1);
        let [lo, hi] = halves(which as u64);
        let [tag, k0, k1, _] = philox4x32_10([lo, hi, purpose as u32, n as u32], halves(seed));
        Permutation { n: n as u64, half, key: [k0, k1], tag, pass }
    }

    /// The element at position `i` < n.
    pub(crate) fn at(&self, i: usize) -> usize {
        let mut x = i as u64;
        loop {
            x = self.turn(x);
            if x < self.n {
                return x as usize;
            }
        }
    }

    fn turn(&self, x: u64) -> u64 {
        let mask = (1u64 << self.half) - 1;
        let [lo, hi] = halves(self.pass);
        let (mut left, mut right) = (x >> self.half, x & mask);
        for round in 0..ROUNDS {
            let f = philox4x32_10([right as u32, self.tag ^ round, lo, hi], self.key)[0];
            (left, right) = (right, left ^ (u64::from(f) & mask));
        }
        left << self.half | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_permutations_and_differ() {
        for n in [1, 2, 3, 5, 64, 65, 1000] {
            let p = Permutation::new(n, 7, Purpose::Shuffle, 0, 0);
            let mut seen: Vec<usize> = (0..n).map(|i| p.at(i)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
        let order = |seed, which, pass| -> Vec<usize> {
            let p = Permutation::new(100, seed, Purpose::Shuffle, which, pass);
            (0..100).map(|i| p.at(i)).collect()
        };
        let base = order(1, 0, 0);
        assert_eq!(base, order(1, 0, 0));
        for other in [order(2, 0, 0), order(1, 1, 0), order(1, 0, 1), (0..100).collect()] {
            assert!(base.iter().zip(&other).filter(|(a, b)| a == b).count() < 10);
        }
    }

    /// Every element is at every position about equally often (chi-square test).
    #[test]
    fn positions_are_uniform() {
        const N: usize = 5;
        let mut counts = [[0u32; N]; N];
        for pass in 0..10_000 {
            let p = Permutation::new(N, 3, Purpose::Mix, 0, pass);
            (0..N).for_each(|i| counts[i][p.at(i)] += 1);
        }
        let expected = 2_000.0;
        let chi: f64 = counts.iter().flatten().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum();
        // With 16 degrees of freedom, a random permutation exceeds 45.9 with probability 10⁻⁴.
        assert!(chi < 45.9, "{chi} {counts:?}");
    }
}
