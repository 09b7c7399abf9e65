//! Softmax cross entropy fused with the output head, summed over tokens.
//!
//! z = x·Wᵀ + b, loss = Σ ln Σ exp zᵢ - `zᵢ[targetᵢ]`; dz = softmax(z) - onehot, dx = dz·W, dW += dzᵀ·x, db += Σ dz.
//! Rows with target [`IGNORE`] are removed before the GEMM. Logits exist for one chunk of rows at a time, at most 8 MiB
//! of them (1024 rows on a GPU), and nothing is saved: the gradients are computed in the same pass. 2·n·d·v FLOPs for
//! the loss, 4·n·d·v with dx, 6·n·d·v with a trained W.

mod cpu;
mod gpu;

use pheye_tensor::{Device, Grads, Tensor};

use crate::linear::Linear;
use crate::{Cx, Error, Result};

/// The target of a row that is ignored.
pub const IGNORE: i64 = -100;

/// Loss of a batch.
#[derive(Debug)]
pub struct Loss {
    /// Sum of the losses over the tokens.
    pub sum: f64,
    /// Number of tokens that are not ignored.
    pub tokens: usize,
    /// Gradient of the sum, with the shape of x; zero in ignored rows.
    pub dx: Option<Tensor>,
}

/// A [`Loss`] whose sum is still on the device, so that the work can be recorded.
#[derive(Debug)]
pub struct Queued {
    /// Sum of the losses over the tokens.
    pub sum: Sum,
    /// Number of tokens that are not ignored.
    pub tokens: usize,
    /// Gradient of the sum, with the shape of x; zero in ignored rows.
    pub dx: Option<Tensor>,
}

/// A sum of losses.
#[derive(Debug)]
pub enum Sum {
    /// The sum, on the host.
    Host(f64),
    /// Two f32 on a GPU that add up to the sum.
    Device(Tensor),
}

impl Sum {
    /// The sum; waits for the device.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the device fails.
    pub fn read(&self) -> Result<f64> {
        match self {
            Sum::Host(sum) => Ok(*sum),
            Sum::Device(parts) => Ok(parts.to_vec_f32()?.into_iter().map(f64::from).sum()),
        }
    }
}

/// The loss of x [n, d] under `head` [v, d] and the gradients of its sum: dx if wanted, those of the head if trained.
///
/// ```
/// use pheye_ops::linear::Linear;
/// use pheye_ops::tensor::{DType, Param, Tensor};
/// use pheye_ops::{Cx, cross_entropy};
///
/// // With a head of zeros every one of the 4 tokens is as probable. Target -100 does not count.
/// let head = Linear { weight: Param::frozen("weight", Tensor::zeros([4, 2], DType::F32)), bias: None };
/// let x = Tensor::from_f32([3, 2], &[1.0; 6])?;
/// let loss = cross_entropy::run(&Cx::cpu(), &x, &head, &[0, -100, 3], false, None)?;
/// assert_eq!(loss.tokens, 2);
/// assert!((loss.sum / 2.0 - 4f64.ln()).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Shapes`] when x, head and targets are inconsistent, [`Error::Range`] when a target is neither in 0..v nor
/// [`IGNORE`].
pub fn run(
    cx: &Cx,
    x: &Tensor,
    head: &Linear,
    targets: &[i64],
    want_dx: bool,
    grads: Option<&mut Grads>,
) -> Result<Loss> {
    let Queued { sum, tokens, dx } = queue(cx, x, head, targets, want_dx, grads)?;
    Ok(Loss { sum: sum.read()?, tokens, dx })
}

/// [`run`] without waiting for the device.
///
/// # Errors
/// The errors of [`run`].
pub fn queue(
    cx: &Cx,
    x: &Tensor,
    head: &Linear,
    targets: &[i64],
    want_dx: bool,
    grads: Option<&mut Grads>,
) -> Result<Queued> {
    let (shape, weight) = (x.shape(), head.weight.shape());
    let (v, d) = (weight.rows(), weight.cols());
    let shape_error = |right_name, right| Error::Shapes {
        op: "cross_entropy",
        left_name: "x",
        left: shape,
        right_name,
        right,
    };
    if shape.cols() != d {
        return Err(shape_error("head", weight));
    }
    if shape.rows() != targets.len() {
        return Err(shape_error("targets", [targets.len()].into()));
    }
    if let Some(b) = head.bias.as_ref().filter(|b| b.shape().elements() != v) {
        return Err(shape_error("bias", b.shape()));
    }
    let kept = rows_with_target(targets, v)?;
    match &cx.device {
        Device::Cpu => cpu::queue(cx, x, head, &kept, want_dx, grads),
        Device::Gpu(gpu) => gpu::queue(cx, gpu, x, head, &kept, want_dx, grads),
    }
}

/// The loss of logits z [n, v] with one target per row. If wanted, z is overwritten by the gradient of the sum.
///
/// # Errors
/// [`Error::Shapes`] when there is not one target for each row, [`Error::Range`] when a target is not in 0..v.
pub fn of_logits(cx: &Cx, z: &mut Tensor, targets: &[u32], want_gradient: bool) -> Result<Sum> {
    let (left, v) = (z.shape(), z.shape().cols());
    if left.rows() != targets.len() {
        let right = [targets.len()].into();
        return Err(Error::Shapes {
            op: "cross_entropy",
            left_name: "logits",
            left,
            right_name: "targets",
            right,
        });
    }
    if let Some(t) = targets.iter().find(|&&t| t as usize >= v) {
        let (value, allowed) = (t.to_string(), format!("0..{v}"));
        return Err(Error::Range { op: "cross_entropy", what: "target", value, allowed });
    }
    match &cx.device {
        Device::Cpu => cpu::of_logits(cx, z, targets, want_gradient),
        Device::Gpu(gpu) => gpu::of_logits(cx, gpu, z, targets, want_gradient),
    }
}

/// The rows that are not ignored, as pairs of row and target.
fn rows_with_target(targets: &[i64], v: usize) -> Result<Vec<(usize, u32)>> {
    let mut kept = Vec::new();
    for (row, &target) in targets.iter().enumerate().filter(|&(_, &t)| t != IGNORE) {
        match u32::try_from(target) {
            Ok(t) if (t as usize) < v => kept.push((row, t)),
            _ => {
                let (value, allowed) = (target.to_string(), format!("0..{v} and {IGNORE}"));
                return Err(Error::Range { op: "cross_entropy", what: "target", value, allowed });
            }
        }
    }
    Ok(kept)
}
