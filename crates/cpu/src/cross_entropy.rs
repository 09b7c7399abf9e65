//! Softmax cross entropy over rows of logits. Loss and gradient are computed while the row is in the cache.

use crate::math::{exp, max, sum, vectorised};
use crate::par;

/// For each row zᵢ of `logits` [rows, v]: `losses[i]` = ln Σ exp(zᵢ) - `zᵢ[targetᵢ]`. If `want_gradient` is true, the
/// row is overwritten by its gradient softmax(zᵢ) - onehot(targetᵢ).
///
/// # Panics
/// When a target is not less than v.
pub fn rows(logits: &mut [f32], losses: &mut [f32], targets: &[u32], want_gradient: bool) {
    if losses.is_empty() {
        return;
    }
    let v = logits.len() / losses.len();
    let rows = (8192 / v.max(1)).max(1);
    let pieces = logits.chunks_mut(rows * v).zip(losses.chunks_mut(rows)).zip(targets.chunks(rows));
    let work = 8 * targets.len() * v;
    par::pieces(pieces, work, |_, ((logits, losses), targets)| {
        piece(logits, losses, targets, want_gradient);
    });
}

vectorised! {
    fn piece(logits: &mut [f32], losses: &mut [f32], targets: &[u32], want_gradient: bool) {
        let v = logits.len() / losses.len();
        for ((z, loss), &target) in logits.chunks_exact_mut(v).zip(losses).zip(targets) {
            let (top, hit) = (max(z), z[target as usize]);
            if !want_gradient {
                *loss = sum([z], |[z]| exp(z - top)).ln() + (top - hit);
                continue;
            }
            z.iter_mut().for_each(|z| *z = exp(*z - top));
            let total = sum([z], |[z]| z);
            *loss = total.ln() + (top - hit);
            let scale = 1.0 / total;
            z.iter_mut().for_each(|z| *z *= scale);
            z[target as usize] -= 1.0;
        }
    }
}
