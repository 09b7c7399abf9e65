//! The loss on the CPU, in chunks of rows.

use pheye_cpu::cross_entropy;
use pheye_cpu::gemm::{Init, add_column_sums, gemm};
use pheye_cpu::mat::MatRef;
use pheye_tensor::{Grads, Param, Tensor};

use super::{Queued, Sum};
use crate::cpu::{matrix, to_f32};
use crate::linear::Linear;
use crate::{Cx, Result};

/// Maximum number of logits in a chunk.
const LOGITS: usize = 1 << 21;

/// The sum of the losses of logits z. If wanted, z is overwritten by its gradient.
pub(super) fn of_logits(cx: &Cx, z: &mut Tensor, targets: &[u32], want_gradient: bool) -> Result<Sum> {
    let mut losses = cx.empty_f32([targets.len()])?;
    cross_entropy::rows(z.f32_mut()?, losses.f32_mut()?, targets, want_gradient);
    Ok(Sum::Host(losses.f32()?.iter().map(|&l| f64::from(l)).sum()))
}

/// [`super::queue`] for the rows in `kept`, pairs of row and target.
pub(super) fn queue(
    cx: &Cx,
    x: &Tensor,
    head: &Linear,
    kept: &[(usize, u32)],
    want_dx: bool,
    mut grads: Option<&mut Grads>,
) -> Result<Queued> {
    let (v, d) = (head.weight.shape().rows(), head.weight.shape().cols());
    let trained = head.weight.is_trained() || head.bias.as_ref().is_some_and(Param::is_trained);
    let want_dz = want_dx || (grads.is_some() && trained);
    let weight = matrix(&head.weight.value, v, d)?;
    let bias = head.bias.as_ref().map(|b| to_f32(cx, &b.value)).transpose()?;
    let bias = bias.as_ref().map(Tensor::f32).transpose()?;
    let mut dx = want_dx.then(|| cx.zeros(x.shape())).transpose()?;
    let (x, mut sum) = (x.f32()?, 0.0);

    let chunk = (LOGITS / v.max(1)).clamp(1, kept.len().max(1));
    let (mut z, mut rows, mut drows) = (cx.empty([chunk, v])?, cx.empty([chunk, d])?, cx.empty([chunk, d])?);
    let mut losses = vec![0.0; chunk];
    for kept in kept.chunks(chunk) {
        let n = kept.len();
        let (z, rows, drows) = (&mut z.f32_mut()?[..n * v], &mut rows.f32_mut()?[..n * d], drows.f32_mut()?);
        for (to, &(row, _)) in rows.chunks_exact_mut(d.max(1)).zip(kept) {
            to.copy_from_slice(&x[row * d..][..d]);
        }
        let rows = MatRef::f32(rows, n, d);
        gemm(z, v, bias.map_or(Init::Zero, Init::Bias), 1.0, rows, weight.t());
        let targets: Vec<u32> = kept.iter().map(|&(_, target)| target).collect();
        cross_entropy::rows(z, &mut losses[..n], &targets, want_dz);
        sum += losses[..n].iter().map(|&l| l as f64).sum::<f64>();
        let dz = MatRef::f32(z, n, v);
        if let Some(dx) = &mut dx {
            gemm(&mut drows[..n * d], d, Init::Zero, 1.0, dz, weight);
            let dx = dx.f32_mut()?;
            for (from, &(row, _)) in drows.chunks_exact(d.max(1)).zip(kept) {
                dx[row * d..][..d].copy_from_slice(from);
            }
        }
        if let Some(grads) = grads.as_deref_mut() {
            if let Some(dw) = grads.of(&head.weight)? {
                gemm(dw, d, Init::Accumulate, 1.0, dz.t(), rows);
            }
            if let Some(b) = &head.bias
                && let Some(db) = grads.of(b)?
            {
                add_column_sums(db, z);
            }
        }
    }
    Ok(Queued { sum: Sum::Host(sum), tokens: kept.len(), dx })
}
