//! LayerNorm over the innermost dimension (Ba et al., arXiv 1607.06450).
//!
//! x̂ = (x - mean)·rstd, y = x̂·weight + bias, rstd = 1/√(var + ε), for each row of x [rows, d]. Saves x (shared, not
//! copied) and 8 bytes per row. Forward reads 4 and writes 4 bytes per element and takes about 8 FLOPs; backward reads
//! 8, writes 4 and takes about 17 FLOPs.
//!
//! dx = rstd·(g - mean(g) - x̂·mean(g·x̂)) with g = dy·weight; dweight += Σ dy·x̂, dbias += Σ dy over the rows.

mod cpu;
mod gpu;
mod lora_down;

use pheye_tensor::{Device, Grads, Init, Param, Scope, Tensor};

use crate::{Cx, Error, Result};

pub use lora_down::{LoraDown, forward_lora_down};

/// Parameters of a LayerNorm.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// Scale γ `[d]`.
    pub weight: Param,
    /// Shift β `[d]`.
    pub bias: Param,
    /// ε, added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// Takes the parameters `weight` and `bias`, each `[d]`, from `scope`.
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

/// Values that the backward of LayerNorm needs.
#[derive(Debug)]
pub struct Saved {
    x: Tensor,
    /// Mean and rstd of each row, f32 [rows, 2].
    stats: Tensor,
}

/// y, with the shape of x.
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
        Device::Cpu => cpu::forward(cx, x, p),
        Device::Gpu(gpu) => gpu::forward(cx, gpu, x, p),
    }
}

/// dx, with the shape of dy; adds to the gradients of weight and bias where trained.
///
/// # Errors
/// [`Error::Shapes`] when dy and y differ in shape.
pub fn backward(
    cx: &Cx,
    saved: &Saved,
    dy: &Tensor,
    p: &LayerNorm,
    grads: Option<&mut Grads>,
) -> Result<Tensor> {
    backward_of(cx, saved, dy, None, p, grads)
}

/// [`backward`] plus `dres`, the gradient of x that comes through the residual connection around the norm.
///
/// # Errors
/// [`Error::Shapes`] when dy and y differ in shape, or dres and dy in size.
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
        Device::Cpu => cpu::backward(cx, saved, dy, dres.as_ref(), p, grads),
        Device::Gpu(gpu) => gpu::backward(cx, gpu, saved, dy, dres, p, grads.as_deref()),
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
