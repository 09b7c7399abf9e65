//! AdamW (arXiv 1711.05101): one step over all trained parameters, and the norm of all gradients.
//!
//! The arithmetic, in f32, and its order are those of torch.optim.AdamW:
//! m += (g - m)(1 - β₁); v = β₂v + (1 - β₂)g²; p = p·(1 - lr·wd) - (lr/(1 - β₁ᵗ))·m / (√v/√(1 - β₂ᵗ) + ε).
//! Reads 16 and writes 12 bytes a parameter, about 14 FLOPs.

use pheye_cpu::adamw as cpu;
use pheye_tensor::{Device, Grads, Param, Tensor};

use crate::{Cx, Error, Result};

/// Hyper-parameters of a step. In f64, since 1 - β₂ of an f32 β₂ is off by 10⁻⁵.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay: p shrinks by lr·weight_decay.
    pub weight_decay: f64,
}

/// Running means of the gradients and of their squares, flat f32 as the gradients are.
#[derive(Debug)]
pub struct Moments {
    /// First moment.
    pub m: Tensor,
    /// Second moment.
    pub v: Tensor,
}

/// Step number `step`, from 1, with the gradients multiplied by `grad_scale`. Frozen parameters stay.
///
/// # Errors
/// [`Error::Shapes`] when the moments are not as long as the gradients; [`pheye_tensor::Error::Shared`] when something
/// else views a trained value.
pub fn step(
    cx: &Cx,
    params: &mut [&mut Param],
    grads: &Grads,
    moments: &mut Moments,
    hp: &AdamW,
    step: u64,
    grad_scale: f32,
) -> Result<()> {
    for (left_name, left) in [("m", moments.m.shape()), ("v", moments.v.shape())] {
        let right = grads.flat.shape();
        if left.elements() != right.elements() {
            return Err(Error::Shapes { op: "adamw", left_name, left, right_name: "gradients", right });
        }
    }
    let correction = |beta: f64| 1.0 - beta.powf(step as f64);
    let step = cpu::Step {
        grad_scale,
        decay: (1.0 - hp.lr * hp.weight_decay) as f32,
        rate1: (1.0 - hp.beta1) as f32,
        beta2: hp.beta2 as f32,
        rate2: (1.0 - hp.beta2) as f32,
        correction2: correction(hp.beta2).sqrt() as f32,
        eps: hp.eps as f32,
        lr: (hp.lr / correction(hp.beta1)) as f32,
    };
    match cx.device {
        Device::Cpu => {
            let (g, m, v) = (grads.flat.f32()?, moments.m.f32_mut()?, moments.v.f32_mut()?);
            for p in params {
                let Some(at) = grads.table.range(p) else { continue };
                cpu::step(p.value.f32_mut()?, &mut m[at.clone()], &mut v[at.clone()], &g[at], step);
            }
            Ok(())
        }
        Device::Gpu(_) => return Err(Error::CpuOnly { op: "adamw" }),
    }
}

/// √Σg² over all gradients, summed in f64 in a fixed order.
///
/// # Errors
/// Those of the tensor.
pub fn global_norm(cx: &Cx, grads: &Grads) -> Result<f64> {
    match cx.device {
        Device::Cpu => Ok(cpu::sum_of_squares(grads.flat.f32()?).sqrt()),
        Device::Gpu(_) => return Err(Error::CpuOnly { op: "adamw" }),
    }
}
