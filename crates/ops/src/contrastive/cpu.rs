//! The contrastive loss on the CPU.

use pheye_cpu::gemm::{Init, gemm};
use pheye_cpu::mat::MatRef;
use pheye_tensor::Tensor;

use super::Loss;
use crate::{Cx, Result};

pub(super) fn run(
    cx: &Cx,
    images: &Tensor,
    texts: &Tensor,
    labels: &[usize],
    log_scale: f32,
) -> Result<Loss> {
    let (b, c, d) = (labels.len(), texts.shape().rows(), texts.shape().cols());
    let (images, texts) = (UnitRows::new(images.f32()?, d), UnitRows::new(texts.f32()?, d));
    let (i, t) = (MatRef::f32(&images.rows, b, d), MatRef::f32(&texts.rows, c, d));
    let scale = log_scale.exp();
    let (mut z, mut dz) = (cx.empty([b, c])?, cx.zeros([b, c])?);
    let (z, dz) = (z.f32_mut()?, dz.f32_mut()?);
    gemm(z, c, Init::Zero, scale, i, t.t());

    let mut shares = vec![0.0; c];
    labels.iter().for_each(|&label| shares[label] += 1.0);
    let (rows, columns) = (b as f64, shares.iter().filter(|&&n| n > 0.0).count() as f64);
    let mut loss = 0.0;
    for (row, &label) in labels.iter().enumerate() {
        let share = |k| if label == k { 1.0 } else { 0.0 };
        loss += cross_entropy(z, dz, |k| row * c + k, c, share, 0.5 / rows);
    }
    for k in (0..c).filter(|&k| shares[k] > 0.0) {
        let share = |row: usize| if labels[row] == k { 1.0 / shares[k] } else { 0.0 };
        loss += cross_entropy(z, dz, |row| row * c + k, b, share, 0.5 / columns);
    }

    let dlog_scale = z.iter().zip(&*dz).map(|(&z, &dz)| f64::from(z) * f64::from(dz)).sum::<f64>() as f32;
    let dz = MatRef::f32(dz, b, c);
    let (mut dimages, mut dtexts) = (cx.empty([b, d])?, cx.empty([c, d])?);
    gemm(dimages.f32_mut()?, d, Init::Zero, scale, dz, t);
    gemm(dtexts.f32_mut()?, d, Init::Zero, scale, dz.t(), i);
    images.backward(dimages.f32_mut()?);
    texts.backward(dtexts.f32_mut()?);
    Ok(Loss { loss, dimages, dtexts, dlog_scale })
}

/// `weight`·(ln Σ exp zⱼ - Σ shareⱼ·zⱼ) over the `n` logits z[at(j)], where the shares sum to 1; adds its gradient to
/// `dz`.
fn cross_entropy(
    z: &[f32],
    dz: &mut [f32],
    at: impl Fn(usize) -> usize,
    n: usize,
    share: impl Fn(usize) -> f32,
    weight: f64,
) -> f64 {
    let top = (0..n).map(|j| z[at(j)]).fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = (0..n).map(|j| (z[at(j)] - top).exp()).sum();
    let mut loss = f64::from(sum.ln());
    for j in 0..n {
        let (z, dz) = (z[at(j)] - top, &mut dz[at(j)]);
        loss -= f64::from(share(j) * z);
        *dz += weight as f32 * (z.exp() / sum - share(j));
    }
    weight * loss
}

/// The rows of a matrix normalised to length 1, and their original lengths.
struct UnitRows {
    rows: Vec<f32>,
    lengths: Vec<f32>,
}

impl UnitRows {
    /// Lengths below 10⁻¹² are replaced by 10⁻¹² (ε).
    fn new(x: &[f32], d: usize) -> UnitRows {
        let mut rows = x.to_vec();
        let normalize = |row: &mut [f32]| {
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x /= length);
            length
        };
        let lengths = rows.chunks_exact_mut(d.max(1)).map(normalize).collect();
        UnitRows { rows, lengths }
    }

    /// Converts the gradient of the normalised rows to that of x in place: dx = (du - u·(u·du)) / length.
    fn backward(&self, du: &mut [f32]) {
        let d = du.len() / self.lengths.len().max(1);
        let rows = self.rows.chunks_exact(d.max(1)).zip(&self.lengths);
        for (du, (u, length)) in du.chunks_exact_mut(d.max(1)).zip(rows) {
            let along: f32 = u.iter().zip(&*du).map(|(u, du)| u * du).sum();
            du.iter_mut().zip(u).for_each(|(du, u)| *du = (*du - u * along) / length);
        }
    }
}
