//! Deterministic random inputs, from the Philox generator.

use pheye_cpu::philox;

/// `n` standard normal values.
pub fn normal(seed: u64, n: usize) -> Vec<f32> {
    draw(seed, n, |w| {
        let ([a, b], [c, d]) = (philox::normal(w[0], w[1]), philox::normal(w[2], w[3]));
        [a, b, c, d]
    })
}

/// `n` values, uniformly distributed from `low` to `high`.
pub fn uniform(seed: u64, n: usize, low: f32, high: f32) -> Vec<f32> {
    draw(seed, n, |w| w.map(|w| low + (high - low) * philox::uniform(w)))
}

/// The random cases of a property test: `n` of them, or those of `PHEYE_CASES`, which is a count or a range
/// such as `57..58`. If a case panics, its number is printed.
///
/// # Panics
/// If `PHEYE_CASES` is neither a count nor a range.
pub fn cases(n: u64) -> impl Iterator<Item = Draw> {
    let asked = std::env::var("PHEYE_CASES").ok();
    let range = asked.map_or(Some(0..n), |text| match text.split_once("..") {
        Some((from, to)) => Some(from.parse().ok()?..to.parse().ok()?),
        None => Some(0..text.parse().ok()?),
    });
    range.expect("PHEYE_CASES is a number or two with .. between").map(|case| Draw { case, drawn: 0 })
}

/// The random choices of one case, determined by its number.
#[derive(Debug)]
pub struct Draw {
    case: u64,
    drawn: u32,
}

impl Draw {
    /// A uniform random integer below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.drawn += 1;
        let word = philox::philox4x32_10([self.drawn, 1, 0, 0], philox::words(self.case))[0];
        ((u64::from(word) * n as u64) >> 32) as usize
    }

    /// A random element of `of`.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// A random size of at least 1: up to 20, or a multiple of 8, or any, and at most `most`, which must be
    /// at least 8.
    pub fn size(&mut self, most: usize) -> usize {
        match self.below(3) {
            0 => 1 + self.below(most.min(20)),
            1 => 8 * (1 + self.below(most / 8)),
            _ => 1 + self.below(most),
        }
    }

    /// A random boolean.
    pub fn coin(&mut self) -> bool {
        self.below(2) == 1
    }
}

impl Drop for Draw {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was PHEYE_CASES={}..{}", self.case, self.case + 1);
        }
    }
}

fn draw(seed: u64, n: usize, f: impl Fn([u32; 4]) -> [f32; 4]) -> Vec<f32> {
    let fours =
        (0..n.div_ceil(4)).flat_map(|i| f(philox::philox4x32_10([i as u32, 0, 0, 0], philox::words(seed))));
    fours.take(n).collect()
}
