//! Random inputs, the same in every run.

use pheye_cpu::philox;

/// `n` standard normal numbers.
pub fn normal(seed: u64, n: usize) -> Vec<f32> {
    draw(seed, n, |w| {
        let ([a, b], [c, d]) = (philox::normal(w[0], w[1]), philox::normal(w[2], w[3]));
        [a, b, c, d]
    })
}

/// `n` numbers between `low` and `high`.
pub fn uniform(seed: u64, n: usize, low: f32, high: f32) -> Vec<f32> {
    draw(seed, n, |w| w.map(|w| low + (high - low) * philox::uniform(w)))
}

fn draw(seed: u64, n: usize, f: impl Fn([u32; 4]) -> [f32; 4]) -> Vec<f32> {
    let fours =
        (0..n.div_ceil(4)).flat_map(|i| f(philox::philox4x32_10([i as u32, 0, 0, 0], philox::words(seed))));
    fours.take(n).collect()
}
