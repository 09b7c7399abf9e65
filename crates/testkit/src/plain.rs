//! The layers of a network as naive formulas, for tests of whole networks. Matrices are row-major slices.

use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::ops::Range;

use crate::{Real, max};

/// Σ aᵢbᵢ.
fn dot<'a, T: Real + 'a>(a: &'a [T], b: impl IntoIterator<Item = &'a T>) -> T {
    let mut sum = T::of(0.0);
    a.iter().zip(b).for_each(|(&a, &b)| sum += a * b);
    sum
}

/// x + y.
pub fn add<T: Real>(x: &[T], y: &[T]) -> Vec<T> {
    x.iter().zip(y).map(|(&x, &y)| x + y).collect()
}

/// x Wᵀ + b for x `[rows, k]` and W `[n, k]`; b has n elements, or none for no bias.
pub fn linear<T: Real>(x: &[T], w: &[T], b: &[T], k: usize) -> Vec<T> {
    let row = |x| w.chunks(k).enumerate().map(move |(j, w)| b.get(j).map_or(dot(x, w), |&b| dot(x, w) + b));
    x.chunks(k).flat_map(row).collect()
}

/// LayerNorm of each row of x `[rows, d]`, with ε = 10⁻⁵ and d the length of `weight`.
pub fn layernorm<T: Real>(x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
    let (d, ones) = (weight.len(), vec![T::of(1.0); weight.len()]);
    let row = |x: &[T]| {
        let mean = dot(x, &ones) / T::of(d as f64);
        let centred: Vec<T> = x.iter().map(|&x| x - mean).collect();
        let rstd = T::of(1.0) / (dot(&centred, &centred) / T::of(d as f64) + T::of(1e-5)).sqrt();
        centred.iter().zip(weight).zip(bias).map(|((&x, &w), &b)| x * rstd * w + b).collect::<Vec<T>>()
    };
    x.chunks(d).flat_map(row).collect()
}

/// GELU: x·Φ(x).
pub fn gelu_exact<T: Real>(x: T) -> T {
    T::of(0.5) * x * (T::of(1.0) + (x * T::of(FRAC_1_SQRT_2)).erf())
}

/// GELU with the tanh approximation.
pub fn gelu_tanh<T: Real>(x: T) -> T {
    let u = T::of((2.0 / PI).sqrt()) * (x + T::of(0.044715) * x * x * x);
    T::of(0.5) * x * (T::of(1.0) + u.tanh())
}

/// Quick GELU: x·σ(1.702x).
pub fn gelu_quick<T: Real>(x: T) -> T {
    x / (T::of(1.0) + (-(T::of(1.702) * x)).exp())
}

/// Multi-head varlen attention: the queries of a span attend to the keys of the same span.
#[derive(Debug, Clone)]
pub struct Attention {
    /// The query rows and the key rows of each span.
    pub spans: Vec<(Range<usize>, Range<usize>)>,
    /// Number of heads.
    pub heads: usize,
    /// The scale of the scores.
    pub scale: f64,
    /// Whether the i-th query of a span (from 0) attends to its first i + 1 keys only.
    pub causal: bool,
}

impl Attention {
    /// softmax(scale·q kᵀ) v for each head, with q, k and v row-major of `width` columns. Returns
    /// `[rows of q, width]`.
    pub fn eval<T: Real>(&self, q: &[T], k: &[T], v: &[T], width: usize) -> Vec<T> {
        let mut out = vec![T::of(0.0); q.len()];
        let dim = width / self.heads;
        for (queries, keys) in &self.spans {
            for (i, query) in queries.clone().enumerate() {
                let seen = if self.causal { keys.start..keys.start + i + 1 } else { keys.clone() };
                for at in (0..width).step_by(dim) {
                    let cut = |m: &[T], row: usize| m[row * width + at..][..dim].to_vec();
                    let q = cut(q, query);
                    let scores = seen.clone().map(|key| dot(&q, &cut(k, key)) * T::of(self.scale));
                    let weights = softmax(&scores.collect::<Vec<T>>());
                    for (key, &w) in seen.clone().zip(&weights) {
                        for (c, v) in cut(v, key).into_iter().enumerate() {
                            out[query * width + at + c] += w * v;
                        }
                    }
                }
            }
        }
        out
    }
}

/// The softmax over all elements.
pub fn softmax<T: Real>(x: &[T]) -> Vec<T> {
    let top = x.iter().copied().fold(x[0], max);
    let e: Vec<T> = x.iter().map(|&x| (x - top).exp()).collect();
    let sum = dot(&e, &vec![T::of(1.0); e.len()]);
    e.into_iter().map(|e| e / sum).collect()
}

/// ln Σ eˣ of all elements.
pub fn log_sum_exp<T: Real>(x: &[T]) -> T {
    let top = x.iter().copied().fold(x[0], max);
    let mut sum = T::of(0.0);
    x.iter().for_each(|&x| sum += (x - top).exp());
    sum.ln() + top
}
