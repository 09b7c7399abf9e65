//! The loss on a GPU: the GEMMs of the output head, in chunks of rows, and between them one kernel that overwrites the
//! logits by their gradient.

use pheye_kernels::params::{CrossEntropy, CrossEntropySum};
use pheye_tensor::{DType, Gpu, Grads, Tensor};

use super::{Queued, Sum};
use crate::gpu::gemm::GemmEpilogue;
use crate::gpu::typed;
use crate::linear::{self, Linear};
use crate::{Cx, Result, rows};

/// Rows in a chunk: 100 MiB of logits for 51200 tokens.
const CHUNK: usize = 1024;

/// Writes the losses `[n]` of the rows of z, of which the first `vocab` columns are logits. If wanted, they are overwritten
/// by their gradient.
fn losses_of(
    cx: &Cx,
    gpu: &Gpu,
    z: &Tensor,
    vocab: usize,
    targets: &[u32],
    losses: &Tensor,
    want_gradient: bool,
) -> Result<()> {
    let targets_at = cx.table(targets)?;
    let mut l = gpu.launch(match want_gradient {
        true => "cross_entropy_fwdbwd_bf16",
        false => "cross_entropy_fwd_bf16",
    })?;
    let z_at = typed(z, DType::Bf16)?;
    let p = CrossEntropy {
        z: if want_gradient { l.update(z_at) } else { l.read(z_at).shared() },
        targets: l.read(targets_at),
        losses: l.write(typed(losses, DType::F32)?),
        vocab: vocab as i32,
        stride: z.shape().cols() as i32,
        weight: 1.0,
    };
    Ok(l.run([targets.len(), 1, 1], &p)?)
}

/// The sum of the losses `[n]` on the device, as two f32 that add up to it.
fn total(cx: &Cx, gpu: &Gpu, losses: &Tensor) -> Result<Tensor> {
    let sum = cx.empty_f32([2])?;
    let mut l = gpu.launch("cross_entropy_sum_f32")?;
    let p = CrossEntropySum {
        losses: l.read(typed(losses, DType::F32)?),
        sum: l.write(sum.region()?),
        rows: losses.shape().elements() as i32,
    };
    l.run([1, 1, 1], &p)?;
    Ok(sum)
}

/// The sum of the losses of logits z. If wanted, z is overwritten by its gradient.
pub(super) fn of_logits(cx: &Cx, gpu: &Gpu, z: &Tensor, targets: &[u32], want_gradient: bool) -> Result<Sum> {
    let losses = cx.empty_f32([targets.len()])?;
    losses_of(cx, gpu, z, z.shape().cols(), targets, &losses, want_gradient)?;
    Ok(Sum::Device(total(cx, gpu, &losses)?))
}

/// The distance between rows of logits in elements. With a vocabulary that is no multiple of 8, such as GPT-2's 50257, rows
/// that follow each other directly would start at addresses that no 16-byte access can use, so they are padded; the
/// GEMMs read and write only the columns of the vocabulary. A trained bias sums the columns of whole rows.
fn stride(head: &Linear) -> usize {
    let v = head.weight.shape().rows();
    let bias = head.bias.as_ref().is_some_and(|bias| bias.is_trained());
    if bias { v } else { v.next_multiple_of(8) }
}

/// [`super::queue`] for the rows in `kept`, pairs of row and target.
pub(super) fn queue(
    cx: &Cx,
    gpu: &Gpu,
    x: &Tensor,
    head: &Linear,
    kept: &[(usize, u32)],
    want_dx: bool,
    mut grads: Option<&mut Grads>,
) -> Result<Queued> {
    let (n, d, v) = (x.shape().rows(), x.shape().cols(), head.weight.shape().rows());
    let trained = head.params().any(|p| p.is_trained());
    let want_dz = want_dx || (grads.is_some() && trained);
    let (at, targets): (Vec<usize>, Vec<u32>) = kept.iter().copied().unzip();
    // The kept rows are in order, so if their number is that of all rows, no copy is needed.
    let all = at.len() == n;
    let picked = if all { x.reshape([n, d])? } else { rows::gather(cx, x, &at)? };
    let dpicked = want_dx.then(|| cx.empty(picked.shape())).transpose()?;
    let losses = cx.empty_f32([at.len()])?;
    let z = cx.empty([CHUNK.min(at.len()), stride(head)])?;
    for start in (0..at.len()).step_by(CHUNK) {
        let part = start..at.len().min(start + CHUNK);
        let (x, z) = (picked.rows(part.clone())?, z.rows(0..part.len())?);
        linear::gpu::gemm(&x, head, &z, GemmEpilogue::default())?.run(cx, gpu)?;
        losses_of(cx, gpu, &z, v, &targets[part.clone()], &losses.view(start, [part.len()])?, want_dz)?;
        if let Some(dx) = &dpicked {
            linear::gpu::input_grad(cx, gpu, &z, head, &dx.rows(part)?, GemmEpilogue::default())?;
        }
        if trained {
            linear::add_grads(cx, Some(&x), &z, head, grads.as_deref_mut())?;
        }
    }
    let dx = match dpicked {
        Some(dpicked) if all => Some(dpicked.reshape(x.shape())?),
        Some(dpicked) => {
            let mut dx = cx.zeros(x.shape())?;
            rows::scatter(cx, &mut dx, &dpicked, &at)?;
            Some(dx)
        }
        None => None,
    };
    Ok(Queued { sum: Sum::Device(total(cx, gpu, &losses)?), tokens: at.len(), dx })
}
