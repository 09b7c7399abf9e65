//! The AdamW update of a parameter, and the squared norm of the gradients.

use rayon::prelude::*;

use crate::math::vectorised;
use crate::par;

/// Elements per task.
const PIECE: usize = 1 << 12;

/// The coefficients of one step, precomputed.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Factor for the gradient, applied first (gradient clipping).
    pub grad_scale: f32,
    /// 1 - lr·weight_decay.
    pub decay: f32,
    /// 1 - β₁.
    pub rate1: f32,
    /// β₂.
    pub beta2: f32,
    /// 1 - β₂.
    pub rate2: f32,
    /// √(1 - β₂ᵗ).
    pub correction2: f32,
    /// ε, added to √v after its bias correction.
    pub eps: f32,
    /// lr / (1 - β₁ᵗ).
    pub lr: f32,
}

/// Updates the parameters p and the moments m and v in place from the gradients g, all of equal length: m += (g - m)(1
/// - β₁); v = β₂v + (1 - β₂)g²; p = p·decay - lr·m / (√v/correction2 + ε).
pub fn step(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], s: Step) {
    let state = m.chunks_mut(PIECE).zip(v.chunks_mut(PIECE)).zip(g.chunks(PIECE));
    par::pieces(p.chunks_mut(PIECE).zip(state), 4 * g.len(), |_, (p, ((m, v), g))| piece(p, m, v, g, s));
}

/// Σ g² in f64. Blocks of fixed size are summed in order, so the result does not depend on the number of threads.
pub fn sum_of_squares(g: &[f32]) -> f64 {
    let sum = |g: &[f32]| {
        let mut sum = 0.0;
        squares(g, &mut sum);
        sum
    };
    if g.len() <= 4 * PIECE {
        return g.chunks(PIECE).map(sum).sum();
    }
    g.par_chunks(PIECE).map(sum).collect::<Vec<f64>>().iter().sum()
}

vectorised! {
    fn piece(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], s: Step) {
        for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * s.grad_scale;
            *m += s.rate1 * (g - *m);
            *v = s.beta2 * *v + s.rate2 * g * g;
            *p = *p * s.decay - s.lr * *m / (v.sqrt() / s.correction2 + s.eps);
        }
    }

    fn squares(g: &[f32], sum: &mut f64) {
        let mut lanes = [0.0; 16];
        let (chunks, rest) = g.as_chunks::<16>();
        for g in chunks {
            for l in 0..16 {
                lanes[l] += g[l] as f64 * g[l] as f64;
            }
        }
        *sum = lanes.iter().sum::<f64>() + rest.iter().map(|&g| g as f64 * g as f64).sum::<f64>();
    }
}
