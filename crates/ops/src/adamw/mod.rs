//! AdamW (Loshchilov and Hutter, arXiv 1711.05101): one step over all trained parameters, and the gradient norm.
//!
//! The arithmetic is f32, in the order of operations of torch.optim.AdamW:
//! m += (g - m)(1 - β₁); v = β₂v + (1 - β₂)g²; p = p·(1 - lr·wd) - (lr/(1 - β₁ᵗ))·m / (√v/√(1 - β₂ᵗ) + ε).
//! A step reads 16 bytes and writes 12 bytes per parameter, and takes about 14 FLOPs per parameter.
//!
//! On a GPU, [`queue_norm`] and [`queue_step`] process all parameters in one launch each and leave their results on the
//! device.

mod cpu;
mod gpu;

use std::ops::Range;

use pheye_cpu::adamw::Step;
use pheye_tensor::{Device, Grads, Masters, Param, Tensor};

use crate::{Cx, Error, Result};

/// Hyperparameters of a step, in f64, because 1 - β₂ with β₂ rounded to f32 has a relative error of 10⁻⁵.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// β₁, the decay rate of the first moment.
    pub beta1: f64,
    /// β₂, the decay rate of the second moment.
    pub beta2: f64,
    /// ε, added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay: p is multiplied by 1 - lr·weight_decay.
    pub weight_decay: f64,
}

/// A range of the flat arrays, and the hyperparameters of its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The range, in elements.
    pub at: Range<usize>,
    /// The hyperparameters.
    pub hp: AdamW,
}

/// Running means of the gradients and of their squares, flat arrays like the gradients: f32, or on a GPU both bf16 with
/// stochastic rounding.
#[derive(Debug)]
pub struct Moments {
    /// First moment.
    pub m: Tensor,
    /// Second moment.
    pub v: Tensor,
}

/// Applies step number `step`, counted from 1, with the gradients multiplied by `grad_scale`. Frozen parameters do not
/// change.
///
/// ```
/// use pheye_ops::adamw::{self, AdamW, Moments};
/// use pheye_ops::tensor::{DType, Grads, Param, ParamTable, Tensor};
/// use pheye_ops::Cx;
///
/// let mut p = Param::frozen("p", Tensor::from_f32([2], &[1.0, -1.0])?);
/// let mut grads = Grads::new(ParamTable::assign([&mut p], |_| true)?);
/// grads.of(&p)?.ok_or("trained")?.copy_from_slice(&[0.5, -2.0]);
/// let [m, v] = [(); 2].map(|()| Tensor::zeros(grads.flat.shape(), DType::F32));
/// let hp = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
/// adamw::step(&Cx::cpu(), &mut [&mut p], &grads, &mut Moments { m, v }, &hp, 1, 1.0)?;
/// // The first step moves each parameter by the learning rate, against its gradient.
/// assert!(p.value.f32()?.iter().zip([0.9, -0.9]).all(|(p, expected)| (p - expected).abs() < 1e-6));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Shapes`] when the moments and the gradients differ in length, [`pheye_tensor::Error::Shared`] when another
/// tensor shares the memory of a trained parameter.
pub fn step(
    cx: &Cx,
    params: &mut [&mut Param],
    grads: &Grads,
    moments: &mut Moments,
    hp: &AdamW,
    step: u64,
    grad_scale: f32,
) -> Result<()> {
    check(grads, moments)?;
    let numbers = numbers(hp, step, grad_scale);
    match &cx.device {
        Device::Cpu => cpu::step(params, grads, moments, numbers),
        Device::Gpu(gpu) => gpu::step(cx, gpu, params, grads, moments, (&numbers, step)),
    }
}

/// Applies [`step`] on a GPU to the parameters of one group, with the gradients multiplied by
/// the factor that [`queue_norm`] stored in `norm`. Nothing changes when the norm is not finite.
///
/// # Errors
/// [`Error::Shapes`] when the arrays differ in length, [`Error::Tensor`] when they do not have this range,
/// [`Error::GpuOnly`] on the CPU.
pub fn queue_step(
    cx: &Cx,
    masters: &Masters,
    group: &Group,
    grads: &Grads,
    moments: &mut Moments,
    step: u64,
    norm: &Tensor,
) -> Result<()> {
    let Device::Gpu(gpu) = &cx.device else { return Err(Error::GpuOnly { op: "adamw" }) };
    check(grads, moments)?;
    for (left_name, t) in [("parameters", &masters.values), ("their bf16 copies", &masters.bf16_copies)] {
        same_length(left_name, t, grads)?;
    }
    if norm.shape().elements() != 2 {
        let right = [2].into();
        return Err(Error::Shapes {
            op: "adamw",
            left_name: "norm",
            left: norm.shape(),
            right_name: "norm",
            right,
        });
    }
    let numbers = numbers(&group.hp, step, 1.0);
    gpu::step_flat(
        gpu,
        masters,
        group.at.clone(),
        grads,
        moments,
        norm,
        &gpu::control(cx, &numbers, step, None)?,
    )
}

/// Checks that the moments are as long as the gradients.
fn check(grads: &Grads, moments: &Moments) -> Result<()> {
    same_length("m", &moments.m, grads)?;
    same_length("v", &moments.v, grads)
}

fn same_length(left_name: &'static str, t: &Tensor, grads: &Grads) -> Result<()> {
    let (left, right) = (t.shape(), grads.flat.shape());
    if left.elements() != right.elements() {
        return Err(Error::Shapes { op: "adamw", left_name, left, right_name: "gradients", right });
    }
    Ok(())
}

/// The scalars that all parameters of a step share.
fn numbers(hp: &AdamW, step: u64, grad_scale: f32) -> Step {
    let correction = |beta: f64| 1.0 - beta.powf(step as f64);
    Step {
        grad_scale,
        decay: (1.0 - hp.lr * hp.weight_decay) as f32,
        rate1: (1.0 - hp.beta1) as f32,
        beta2: hp.beta2 as f32,
        rate2: (1.0 - hp.beta2) as f32,
        correction2: correction(hp.beta2).sqrt() as f32,
        eps: hp.eps as f32,
        lr: (hp.lr / correction(hp.beta1)) as f32,
    }
}

/// √Σg² over all gradients, accumulated in f64 in a fixed order; a GPU rounds the result to f32.
///
/// # Errors
/// [`Error::Tensor`] when the gradients are not on the context's device, or a GPU fails.
pub fn global_norm(cx: &Cx, grads: &Grads) -> Result<f64> {
    match cx.device {
        Device::Cpu => cpu::global_norm(grads),
        Device::Gpu(_) => Ok(f64::from(queue_norm(cx, grads, 1.0, None)?.to_vec_f32()?[0])),
    }
}

/// Computes the clipping factor on a GPU. Returns f32 `[2]`: the norm `scale`·√Σg², and the factor for the gradients
/// that [`queue_step`] takes. The factor is `scale`, or less when the norm exceeds `clip`, so that the scaled norm
/// becomes `clip`; it is NaN when the norm is not finite.
///
/// # Errors
/// [`Error::GpuOnly`] on the CPU, [`Error::Tensor`] when the GPU fails.
pub fn queue_norm(cx: &Cx, grads: &Grads, scale: f64, clip: Option<f64>) -> Result<Tensor> {
    let Device::Gpu(gpu) = &cx.device else {
        return Err(Error::GpuOnly { op: "the norm left on the device" });
    };
    gpu::norm(cx, gpu, &grads.flat, scale, clip)
}
