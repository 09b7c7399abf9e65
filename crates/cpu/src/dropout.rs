//! Dropout's factors, drawn from the element's index: whoever needs a mask again draws it again.
//!
//! Element i of module m in stream s takes word i mod 4 of Philox(counter = (i / 4, m, s low, s high), key = seed). It is
//! kept when that word, as a number in [0, 1), is at least p, and then multiplied by 1 / (1 − p).

use crate::math::vectorised;
use crate::par;
use crate::philox::{philox4x32_10, uniform, words};

/// Which random numbers a mask takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mask {
    /// Chance of a zero.
    pub p: f32,
    /// Seed of the run.
    pub seed: u64,
    /// Distinct for each use: step and micro-batch.
    pub stream: u64,
    /// Which dropout of the network this is.
    pub module: u32,
}

/// Blocks of four elements drawn side by side, as many as a vector has lanes.
const WIDE: usize = 8;
const PIECE: usize = 1 << 12;
/// Steps of work that one element is worth.
const COST: usize = 8;

/// out[i] = x[i] times the factor of element `first + i`.
pub fn apply(out: &mut [f32], x: &[f32], first: usize, mask: Mask) {
    par::rows(out, 1, PIECE, x.len() * COST, |i, out| apply_piece(out, &x[i..], first + i, mask));
}

/// out[i] += x[i] times the factor of element `first + i`.
pub fn add(out: &mut [f32], x: &[f32], first: usize, mask: Mask) {
    par::rows(out, 1, PIECE, x.len() * COST, |i, out| add_piece(out, &x[i..], first + i, mask));
}

vectorised! {
    fn apply_piece(out: &mut [f32], x: &[f32], first: usize, mask: Mask) {
        draw(out, x, first, mask, |out, x, f| *out = x * f);
    }

    fn add_piece(out: &mut [f32], x: &[f32], first: usize, mask: Mask) {
        draw(out, x, first, mask, |out, x, f| *out += x * f);
    }
}

#[inline(always)]
fn draw(out: &mut [f32], x: &[f32], first: usize, mask: Mask, put: impl Fn(&mut f32, f32, f32)) {
    const CHUNK: usize = 4 * WIDE;
    let keep = 1.0 / (1.0 - mask.p);
    let ([low, high], key) = (words(mask.stream), words(mask.seed));
    let factors = |block: usize| {
        std::array::from_fn::<_, WIDE, _>(|lane| {
            let words = philox4x32_10([(block + lane) as u32, mask.module, low, high], key);
            words.map(|w| if uniform(w) >= mask.p { keep } else { 0.0 })
        })
    };
    let (mut block, skip) = (first / 4, first % 4);
    let mut at = 0;
    while at < out.len() {
        let f = factors(block);
        let f = f.as_flattened();
        let from = if at == 0 { skip } else { 0 };
        let len = (CHUNK - from).min(out.len() - at);
        for ((out, &x), &f) in out[at..at + len].iter_mut().zip(&x[at..at + len]).zip(&f[from..from + len]) {
            put(out, x, f);
        }
        (at, block) = (at + len, block + WIDE);
    }
}
