//! Random sampling of a token from each row of logits.
//!
//! The weight of a logit is exp((x - max x) / temperature). `top_k` keeps the logits that are not below the k-th
//! largest. Of these, `top_p` (nucleus sampling, Holtzman et al., arXiv 1904.09751) keeps the largest whose weights
//! make up that share, and all that equal the smallest of them. If the largest logit of a row is not finite, or the
//! temperature is 0, the result is that of [`crate::argmax`].
//!
//! Weights are integers, 2³⁰ for the largest, so a logit whose weight is less than 2⁻³⁰ of the largest is never drawn.
//! They are computed with fused multiply-adds only, so every processor gets bit-identical sums and draws the same
//! token.
//!
//! Sampling runs on the host, where generation processes the logits.

use pheye_cpu::philox;
use pheye_tensor::Tensor;

use crate::topk::sort_key;
use crate::{Cx, Error, Result, argmax};

/// The parameters of sampling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Values above 1 flatten the distribution, values below 1 sharpen it; 0 selects the largest logit.
    pub temperature: f32,
    /// Number of largest logits to keep; 0 keeps all.
    pub top_k: usize,
    /// Share of the probability to keep, above 0; 1 keeps all.
    pub top_p: f32,
    /// Key of the Philox generator.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0 }
    }
}

/// A column index for each row of x [n, v], f32 on the host. Row i uses random number `draws[i]`, so its token does not
/// depend on the other rows.
///
/// ```
/// use pheye_ops::sampling::{self, Sampling};
/// use pheye_ops::{Cx, tensor::Tensor};
///
/// let logits = Tensor::from_f32([1, 3], &[0.0, 20.0, 0.0])?;
/// let how = Sampling { top_k: 1, ..Sampling::default() };
/// assert_eq!(sampling::forward(&Cx::cpu(), &logits, &how, &[7])?, [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Shapes`] when there is not one draw for each row, [`Error::Range`] when an option is outside its range or
/// the rows have no columns, [`Error::Tensor`] when x is on a GPU or not f32.
pub fn forward(cx: &Cx, x: &Tensor, how: &Sampling, draws: &[u64]) -> Result<Vec<u32>> {
    let (left, cols) = (x.shape(), x.shape().cols());
    if left.rows() != draws.len() {
        let right = [draws.len()].into();
        return Err(Error::Shapes { op: "sampling", left_name: "logits", left, right_name: "draws", right });
    }
    let range = |what, value: String, allowed: &str| {
        Err(Error::Range { op: "sampling", what, value, allowed: allowed.to_owned() })
    };
    if !(how.temperature >= 0.0 && how.temperature.is_finite()) {
        return range("temperature", how.temperature.to_string(), "a finite number from 0");
    }
    if !(how.top_p > 0.0 && how.top_p <= 1.0) {
        return range("top_p", how.top_p.to_string(), "above 0, up to 1");
    }
    if cols == 0 && left.rows() > 0 {
        return range("columns", cols.to_string(), "1 or more");
    }
    let slope = std::f32::consts::LOG2_E / how.temperature;
    if !slope.is_finite() {
        return argmax::forward(cx, x);
    }
    let greedy = argmax::forward(cx, x)?;
    let rows = x.f32()?.chunks_exact(cols.max(1)).zip(draws).zip(greedy);
    Ok(rows.map(|((row, &draw), best)| choose(row, best, how, slope, draw)).collect())
}

/// The token of a row whose largest logit is at `best`.
fn choose(row: &[f32], best: u32, how: &Sampling, slope: f32, draw: u64) -> u32 {
    let top = row[best as usize];
    if !top.is_finite() {
        return best;
    }
    let weighed: Vec<(u32, u64)> = row.iter().map(|&v| (sort_key(v), weight(v - top, slope))).collect();
    let mut bound = 0;
    if (how.top_k > 0 && how.top_k < row.len()) || how.top_p < 1.0 {
        let mut sorted = weighed.clone();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        if how.top_k > 0 && how.top_k < row.len() {
            bound = sorted[how.top_k - 1].0;
        }
        if how.top_p < 1.0 {
            let kept = sorted.iter().take_while(|(key, _)| *key >= bound);
            let total: u64 = kept.map(|(_, weight)| weight).sum();
            let need = ((total as f64 * f64::from(how.top_p)) as u64).max(1);
            let mut sum = 0;
            let last = sorted.iter().find(|(_, weight)| {
                sum += weight;
                sum >= need
            });
            bound = last.map_or(bound, |(key, _)| *key);
        }
    }
    let kept = || weighed.iter().map(|&(key, weight)| if key >= bound { weight } else { 0 });
    let [lo, hi] = philox::words(draw);
    let [random, ..] = philox::philox4x32_10([lo, hi, STREAM, 0], philox::words(how.seed));
    let mut left = ((u128::from(kept().sum::<u64>()) * u128::from(random)) >> 32) as u64;
    let found = kept().position(|weight| {
        let here = left < weight;
        left = left.wrapping_sub(weight);
        here
    });
    found.map_or(best, |i| i as u32)
}

/// Third word of the Philox counter, which separates these random numbers from those of dropout.
const STREAM: u32 = 0x5A3C;

/// 2^(difference·slope) in units of 2⁻³⁰: a power of two times a polynomial for 2ʳ with |r| ≤ ½, whose error is below
/// 2⁻²².
fn weight(difference: f32, slope: f32) -> u64 {
    const SERIES: [f32; 7] =
        [1.540_353e-4, 1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 2.402_265e-1, 6.931_472e-1, 1.0];
    let t = difference * slope;
    if t.is_nan() || t <= -30.0 {
        return 0;
    }
    let n = t.round_ties_even();
    let r = difference.mul_add(slope, -n);
    let y = SERIES[1..].iter().fold(SERIES[0], |y, &c| y.mul_add(r, c));
    u64::from((y * (1u32 << 30) as f32) as u32 >> (-n) as u32)
}
