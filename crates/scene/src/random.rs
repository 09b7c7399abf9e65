//! Random numbers of one scene: a stream of Philox words, keyed by the seed and the number of the scene.

use pheye_cpu::philox::{philox4x32_10, uniform, words};

/// A stream of random numbers that is a function of seed and scene alone.
pub(crate) struct Rng {
    key: [u32; 2],
    scene: [u32; 2],
    block: u32,
    ready: [u32; 4],
    used: usize,
}

/// Separates these streams from others with the same seed.
const PURPOSE: u32 = 0x5ce0_e7e7;

impl Rng {
    pub(crate) fn new(seed: u64, scene: u64) -> Rng {
        Rng { key: words(seed), scene: words(scene), block: 0, ready: [0; 4], used: 4 }
    }

    /// 32 random bits.
    pub(crate) fn bits(&mut self) -> u32 {
        if self.used == 4 {
            self.ready = philox4x32_10([self.block, PURPOSE, self.scene[0], self.scene[1]], self.key);
            (self.block, self.used) = (self.block.wrapping_add(1), 0);
        }
        self.used += 1;
        self.ready[self.used - 1]
    }

    /// A number in [0, 1).
    pub(crate) fn unit(&mut self) -> f32 {
        uniform(self.bits())
    }

    /// An index below `n`, which is at least 1.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        // The bias is below n / 2³².
        ((u64::from(self.bits()) * n as u64) >> 32) as usize
    }

    /// An integer from `low` to `high`, both included.
    pub(crate) fn integer(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1) as usize) as i32
    }

    /// A number in [`low`, `high`).
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// A number in [`low`, `high`) whose logarithm is uniform.
    pub(crate) fn log_between(&mut self, low: f32, high: f32) -> f32 {
        (low * libm::powf(high / low, self.unit())).clamp(low, high)
    }

    /// True with the probability `p`.
    pub(crate) fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// One of `items`, which is not empty.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// One of `items`, of which there is at least one.
    pub(crate) fn choose<T, const N: usize>(&mut self, items: [T; N]) -> T {
        let at = self.below(N);
        // `below` is less than N, so that there is an item at `at`.
        items.into_iter().nth(at).unwrap_or_else(|| unreachable!())
    }

    /// Puts `items` in a random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
