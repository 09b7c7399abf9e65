//! Random numbers by key instead of by state: what the seed, a purpose and a counter give, always and everywhere.

use pheye_cpu::philox::{philox4x32_10, words as halves};

/// What random numbers are for; each purpose has numbers of its own.
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
}

/// Four random words for item `item` of pass `pass`.
pub(crate) fn draw(seed: u64, purpose: Purpose, item: u32, pass: u64) -> [u32; 4] {
    let [lo, hi] = halves(pass);
    philox4x32_10([item, purpose as u32, lo, hi], halves(seed))
}

/// A number below `n` from a random word.
pub(crate) fn below(word: u32, n: u32) -> u32 {
    ((u64::from(word) * u64::from(n)) >> 32) as u32
}

/// A random order of 0..n, of which any element can be had alone.
///
/// A Feistel network of Philox rounds permutes the next power of four; numbers not below `n` are sent through again
/// until one is (cycle walking). On average that takes fewer than four turns.
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
    /// The order of pass `pass`; `which` tells apart permutations of one purpose.
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

    /// Every element comes to every position about equally often (chi-square).
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
        // 16 degrees of freedom: 45.9 is exceeded once in ten thousand seeds.
        assert!(chi < 45.9, "{chi} {counts:?}");
    }
}
