//! LayerNorm over the innermost dimension (arXiv 1607.06450).
//!
//! x̂ = (x - mean)·rstd, y = x̂·weight + bias, rstd = 1/√(var + ε), for each row of x [rows, d]. Saved are x (shared, not
//! copied) and 8 bytes a row. Forward reads 4 and writes 4 bytes an element, about 8 FLOPs; backward reads 8, writes 4,
//! about 17 FLOPs.
//!
//! dx = rstd·(g - mean(g) - x̂·mean(g·x̂)) with g = dy·weight; dweight += Σ dy·x̂, dbias += Σ dy over the rows.

mod gpu;
mod lora;

use pheye_cpu::layernorm as cpu;
use pheye_tensor::{Device, Grads, Init, Param, Scope, Tensor};

use crate::cpu::to_f32;
use crate::{Cx, Error, Result};

pub use lora::{LoraDown, forward_lora_down};

/// Parameters of a LayerNorm.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// Scale, of d elements.
    pub weight: Param,
    /// Shift, of d elements.
    pub bias: Param,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// The parameters `weight` and `bias` of width `d` at `scope`.
    pub fn new(scope: &mut Scope, d: usize, eps: f32) -> LayerNorm {
        LayerNorm {
            weight: scope.param("weight", [d], Init::Ones),
            bias: scope.param("bias", [d], Init::Zeros),
            eps,
        }
    }

    /// Weight and bias.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        vec![&mut self.weight, &mut self.bias]
    }
}

/// What backward needs.
#[derive(Debug)]
pub struct Saved {
    x: Tensor,
    /// Mean and rstd of each row.
    stats: Tensor,
}

/// y of the shape of x.
///
/// ```
/// use pheye_ops::layernorm::{self, LayerNorm};
/// use pheye_ops::tensor::{Scope, Tensor};
/// use pheye_ops::{Cx, RandomInit};
///
/// let p = LayerNorm::new(&mut Scope::new(&mut RandomInit::new(1), "norm"), 2, 0.0);
/// let (y, _saved) = layernorm::forward(&Cx::cpu(), &Tensor::from_f32([1, 2], &[3.0, 5.0])?, &p)?;
/// assert_eq!(y.f32()?, [-1.0, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Shapes`] when weight or bias are not as wide as x.
pub fn forward(cx: &Cx, x: &Tensor, p: &LayerNorm) -> Result<(Tensor, Saved)> {
    check_params(x, p)?;
    match &cx.device {
        Device::Cpu => {
            let (mut y, mut stats) = (cx.empty(x.shape())?, cx.empty_f32([x.shape().rows(), 2])?);
            let (weight, bias) = (to_f32(cx, &p.weight.value)?, to_f32(cx, &p.bias.value)?);
            cpu::forward(y.f32_mut()?, stats.f32_mut()?, x.f32()?, weight.f32()?, bias.f32()?, p.eps);
            Ok((y, Saved { x: x.clone(), stats }))
        }
        Device::Gpu(gpu) => gpu::forward(cx, gpu, x, p),
    }
}

/// dx of the shape of dy; adds to the gradients of weight and bias where trained.
///
/// # Errors
/// [`Error::Shapes`] when dy is not of the shape of y.
pub fn backward(
    cx: &Cx,
    saved: &Saved,
    dy: &Tensor,
    p: &LayerNorm,
    grads: Option<&mut Grads>,
) -> Result<Tensor> {
    backward_of(cx, saved, dy, None, p, grads)
}

/// [`backward`] plus `dres`, the gradient of x by the residual connection around the norm and what follows it.
///
/// # Errors
/// As [`backward`]; also when dres is not of the size of dy.
pub fn backward_residual(
    cx: &Cx,
    saved: &Saved,
    dy: &Tensor,
    dres: Tensor,
    p: &LayerNorm,
    grads: Option<&mut Grads>,
) -> Result<Tensor> {
    check("dres", &dres, "dy", dy, dres.shape().elements() == dy.shape().elements())?;
    backward_of(cx, saved, dy, Some(dres), p, grads)
}

fn backward_of(
    cx: &Cx,
    saved: &Saved,
    dy: &Tensor,
    dres: Option<Tensor>,
    p: &LayerNorm,
    grads: Option<&mut Grads>,
) -> Result<Tensor> {
    let (rows, d) = (dy.shape().rows(), dy.shape().cols());
    check("dy", dy, "x", &saved.x, (rows, d) == (saved.x.shape().rows(), saved.x.shape().cols()))?;
    let grads = grads.filter(|_| p.weight.is_trained() || p.bias.is_trained());
    match &cx.device {
        Device::Cpu => {
            let mut dx = cx.empty(dy.shape())?;
            let pieces = if grads.is_some() { rows.div_ceil(cpu::piece_rows(d)) } else { 0 };
            let mut partial = cx.empty([pieces, 2 * d])?;
            let weight = to_f32(cx, &p.weight.value)?;
            let from = cpu::Backward {
                dy: dy.f32()?,
                x: saved.x.f32()?,
                stats: saved.stats.f32()?,
                weight: weight.f32()?,
                plus: dres.as_ref().map(Tensor::f32).transpose()?,
            };
            cpu::backward(dx.f32_mut()?, partial.f32_mut()?, from);
            if let Some(grads) = grads {
                for (i, param) in [&p.weight, &p.bias].into_iter().enumerate() {
                    let Some(sum) = grads.of(param)? else { continue };
                    for piece in partial.f32()?.chunks_exact(d.max(1)).skip(i).step_by(2) {
                        sum.iter_mut().zip(piece).for_each(|(s, v)| *s += v);
                    }
                }
            }
            Ok(dx)
        }
        Device::Gpu(gpu) => {
            if let Some(grads) = grads {
                gpu::affine(cx, gpu, saved, dy, p, grads)?;
            }
            gpu::backward(cx, gpu, saved, dy, dres, p)
        }
    }
}

fn check_params(x: &Tensor, p: &LayerNorm) -> Result<()> {
    let width = x.shape().cols();
    check("x", x, "weight", &p.weight.value, p.weight.shape().elements() == width)?;
    check("x", x, "bias", &p.bias.value, p.bias.shape().elements() == width)
}

fn check(
    left_name: &'static str,
    left: &Tensor,
    right_name: &'static str,
    right: &Tensor,
    fits: bool,
) -> Result<()> {
    match fits {
        true => Ok(()),
        false => Err(Error::Shapes {
            op: "layernorm",
            left_name,
            left: left.shape(),
            right_name,
            right: right.shape(),
        }),
    }
}
