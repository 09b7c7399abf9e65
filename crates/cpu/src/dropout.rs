//! Dropout whose mask is a function of the element's index, so that backward recomputes the mask instead of
//! storing it.
//!
//! Element i of dropout module m at RNG offset s takes word i mod 4 of Philox(counter = (i / 4, m, s low, s high), key
//! = seed). The element is kept if that word, converted to a number in [0, 1), is at least p; kept elements are
//! multiplied by 1 / (1 − p).

use crate::gemm::transpose4;
use crate::math::vectorised;
use crate::par;
use crate::philox::{ROUNDS, next_key, round, words};

/// The dropout mask of one module, given by the inputs of its random numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mask {
    /// The probability that an element becomes zero.
    pub p: f32,
    /// The seed of the run.
    pub seed: u64,
    /// The RNG offset. It is distinct for each step and micro-batch.
    pub rng_offset: u64,
    /// The index of this dropout module in the network.
    pub module: u32,
}

/// Philox blocks (of four elements each) that are computed in parallel, one per vector lane.
const BLOCKS: usize = 8;
const PIECE: usize = 1 << 12;
/// The cost of one element, in multiply-adds.
const COST: usize = 8;

/// `out[i] = x[i]` times the mask value of element `first + i`.
pub fn apply(out: &mut [f32], x: &[f32], first: usize, mask: Mask) {
    par::rows(out, 1, PIECE, x.len() * COST, |i, out| apply_piece(out, &x[i..], first + i, mask));
}

/// `out[i] += x[i]` times the mask value of element `first + i`.
pub fn add(out: &mut [f32], x: &[f32], first: usize, mask: Mask) {
    par::rows(out, 1, PIECE, x.len() * COST, |i, out| add_piece(out, &x[i..], first + i, mask));
}

vectorised! {
    fn apply_piece(out: &mut [f32], x: &[f32], first: usize, mask: Mask) {
        for_each_masked(out, x, first, mask, |out, x, f| *out = x * f);
    }

    fn add_piece(out: &mut [f32], x: &[f32], first: usize, mask: Mask) {
        for_each_masked(out, x, first, mask, |out, x, f| *out += x * f);
    }
}

#[inline(always)]
fn for_each_masked(out: &mut [f32], x: &[f32], first: usize, mask: Mask, put: impl Fn(&mut f32, f32, f32)) {
    let (mut block, mut skip) = (first / 4, first % 4);
    let mut at = 0;
    while at < out.len() {
        let scales = mask_scales(block as u32, mask);
        let f = &scales.as_flattened()[skip..];
        let len = f.len().min(out.len() - at);
        for ((out, &x), &f) in out[at..at + len].iter_mut().zip(&x[at..at + len]).zip(f) {
            put(out, x, f);
        }
        (at, block, skip) = (at + len, block + BLOCKS, 0);
    }
}

/// The mask values of blocks `block`, `block + 1`, …: Philox with one block per lane. Its 32-bit words are
/// kept in 64-bit lanes, as 32×32-bit multiplication requires.
#[inline(always)]
fn mask_scales(block: u32, mask: Mask) -> [[f32; 4]; BLOCKS] {
    let ([low, high], mut key) = (words(mask.rng_offset), words(mask.seed));
    let mut c = [[0; BLOCKS], [mask.module.into(); BLOCKS], [low.into(); BLOCKS], [high.into(); BLOCKS]];
    for (l, c) in c[0].iter_mut().enumerate() {
        *c = u64::from(block.wrapping_add(l as u32));
    }
    for _ in 0..ROUNDS {
        let [c0, c1, c2, c3] = &mut c;
        for (((c0, c1), c2), c3) in c0.iter_mut().zip(c1).zip(c2).zip(c3) {
            [*c0, *c1, *c2, *c3] = round([*c0, *c1, *c2, *c3], key);
        }
        key = next_key(key);
    }
    let keep = (1.0 / (1.0 - mask.p)).to_bits();
    // A word represents word / 256 · 2⁻²⁴. The comparison is on integers: the sign of the difference serves as a mask,
    // hidden from the optimizer, which would otherwise turn it into 32 branches.
    let from = (mask.p * (1 << 24) as f32).ceil() as i32;
    let mut bits = [[0; BLOCKS]; 4];
    for (f, &c) in bits.as_flattened_mut().iter_mut().zip(c.as_flattened()) {
        let kept = (from - 1 - (c as u32 >> 8) as i32) >> 31;
        *f = keep & kept as u32;
    }
    let f: [[f32; BLOCKS]; 4] = bytemuck::cast(std::hint::black_box(bits));
    let mut out = [[0.0; 4]; BLOCKS];
    for l in (0..BLOCKS).step_by(4) {
        let mut block = [[0.0; 4]; 4];
        for w in 0..4 {
            block[w].copy_from_slice(&f[w][l..l + 4]);
        }
        out[l..l + 4].copy_from_slice(&transpose4(block));
    }
    out
}
