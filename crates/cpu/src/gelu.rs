//! The three variants of GELU, elementwise, forward and backward.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use crate::math::{erf, exp, sigmoid, vectorised};
use crate::par;

/// Elements per task.
const PIECE: usize = 1 << 12;
/// The cost of one element, in multiply-adds.
const COST: usize = 8;

/// The variant of GELU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// The exact form x·Φ(x), with the error function.
    Exact,
    /// The tanh approximation x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
    Tanh,
    /// The sigmoid approximation x·σ(1.702·x), as in CLIP.
    Quick,
}

/// y = gelu(x), elementwise; y and x have the same length.
pub fn forward(y: &mut [f32], x: &[f32], kind: Gelu) {
    let f = match kind {
        Gelu::Exact => exact,
        Gelu::Tanh => tanh,
        Gelu::Quick => quick,
    };
    par::pieces(y.chunks_mut(PIECE).zip(x.chunks(PIECE)), COST * x.len(), |_, (y, x)| f(y, x));
}

/// dx = dy·gelu′(x), elementwise; all of the same length.
pub fn backward(dx: &mut [f32], dy: &[f32], x: &[f32], kind: Gelu) {
    let f = match kind {
        Gelu::Exact => exact_backward,
        Gelu::Tanh => tanh_backward,
        Gelu::Quick => quick_backward,
    };
    let from = dy.chunks(PIECE).zip(x.chunks(PIECE));
    par::pieces(dx.chunks_mut(PIECE).zip(from), 2 * COST * x.len(), |_, (dx, (dy, x))| f(dx, dy, x));
}

const QUICK: f32 = 1.702;
/// (1 + tanh u)/2 = σ(2u), and 2u = x·(A + B·x²) with A = 2√(2/π), B = 0.044715·A.
const A: f32 = std::f32::consts::SQRT_2 * FRAC_2_SQRT_PI;
const B: f32 = 0.044715 * A;

vectorised! {
    fn exact(y: &mut [f32], x: &[f32]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * normal(x));
    }

    fn tanh(y: &mut [f32], x: &[f32]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * sigmoid(x * (x * x).mul_add(B, A)));
    }

    fn quick(y: &mut [f32], x: &[f32]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * sigmoid(QUICK * x));
    }

    fn exact_backward(dx: &mut [f32], dy: &[f32], x: &[f32]) {
        const DENSITY: f32 = 0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI;
        for ((dx, dy), &x) in dx.iter_mut().zip(dy).zip(x) {
            *dx = dy * (x * DENSITY).mul_add(exp(-0.5 * x * x), normal(x));
        }
    }

    fn tanh_backward(dx: &mut [f32], dy: &[f32], x: &[f32]) {
        for ((dx, dy), &x) in dx.iter_mut().zip(dy).zip(x) {
            let (s, ds) = sigmoid_and_slope(x * (x * x).mul_add(B, A));
            *dx = dy * (x * (x * x).mul_add(3.0 * B, A)).mul_add(ds, s);
        }
    }

    fn quick_backward(dx: &mut [f32], dy: &[f32], x: &[f32]) {
        for ((dx, dy), &x) in dx.iter_mut().zip(dy).zip(x) {
            let (s, ds) = sigmoid_and_slope(QUICK * x);
            *dx = dy * (QUICK * x).mul_add(ds, s);
        }
    }
}

/// Φ, the cumulative distribution function of the standard normal distribution.
#[inline(always)]
fn normal(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * FRAC_1_SQRT_2)
}

/// σ(z) and σ′(z) = σ²e⁻ᶻ, which avoids the cancellation in 1 - σ. Below -80, where both vanish, e⁻ᶻ would
/// overflow, so it is clamped.
#[inline(always)]
fn sigmoid_and_slope(z: f32) -> (f32, f32) {
    let e = exp(if z < -80.0 { 80.0 } else { -z });
    let s = 1.0 / (1.0 + e);
    (s, s * s * e)
}
