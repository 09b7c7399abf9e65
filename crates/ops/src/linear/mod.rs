//! Linear layer y = x Wᵀ + b, for x [rows, k], W [n, k] in f32, bf16 or (on the CPU) int8, b `[n]`.
//!
//! dx = dy W, dW += dyᵀ x, db += Σ dy. Saves x if W is trained, and nothing else. Each GEMM takes 2·rows·k·n FLOPs and
//! accesses x, W and y once; the bias is added in its epilogue.

use pheye_tensor::{Device, Grads, Init, Param, Scope, Shape, Tensor};

use crate::{Cx, Error, Result};

mod cpu;
mod epilogue;
pub(crate) mod gpu;

use crate::gpu::gemm::GemmEpilogue;
pub(crate) use epilogue::into_array;
pub use epilogue::{BackwardEpilogue, Epilogue, Output, backward_with, forward_several, forward_with};

/// The parameters of a linear layer.
#[derive(Debug)]
pub struct Linear {
    /// W [n, k], or any shape whose first dimension is n.
    pub weight: Param,
    /// b `[n]`.
    pub bias: Option<Param>,
}

/// Values that the backward of a linear needs.
#[derive(Debug)]
pub struct Saved {
    x: Option<Tensor>,
}

impl Saved {
    /// The values to save for x and p.
    pub(crate) fn of(x: &Tensor, p: &Linear) -> Saved {
        Saved { x: p.weight.is_trained().then(|| x.clone()) }
    }
}

impl Linear {
    /// Takes `weight` [n, k] and, if wanted, a zero-initialised `bias` `[n]` from `scope`.
    pub fn new(scope: &mut Scope, k: usize, n: usize, bias: bool, init: Init) -> Linear {
        let weight = scope.param("weight", [n, k], init);
        Linear { weight, bias: bias.then(|| scope.param("bias", [n], Init::Zeros)) }
    }

    /// The parameters, weight first.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        std::iter::once(&self.weight).chain(&self.bias)
    }

    /// The parameters, weight first.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        std::iter::once(&mut self.weight).chain(&mut self.bias).collect()
    }

    /// Number of columns of y.
    pub fn n(&self) -> usize {
        self.weight.shape().dims().first().copied().unwrap_or(1)
    }

    /// Number of columns of x.
    pub fn k(&self) -> usize {
        self.weight.shape().elements() / self.n().max(1)
    }

    /// FLOPs of forward for `rows` rows; dx and dW take as many each.
    pub fn flops(&self, rows: usize) -> u64 {
        2 * rows as u64 * self.weight.shape().elements() as u64
    }
}

fn shapes(left_name: &'static str, left: Shape, right_name: &'static str, right: Shape) -> Error {
    Error::Shapes { op: "linear", left_name, left, right_name, right }
}

/// Checks that x and the bias fit the weight.
pub(crate) fn check_input(x: &Tensor, p: &Linear) -> Result<()> {
    if x.shape().cols() != p.k() {
        return Err(shapes("x", x.shape(), "weight", p.weight.shape()));
    }
    match p.bias.as_ref().filter(|b| b.shape().elements() != p.n()) {
        Some(b) => Err(shapes("bias", b.shape(), "weight", p.weight.shape())),
        None => Ok(()),
    }
}

/// Checks that dy fits the weight.
pub(crate) fn check_output(dy: &Tensor, p: &Linear) -> Result<()> {
    match dy.shape().cols() == p.n() {
        true => Ok(()),
        false => Err(shapes("dy", dy.shape(), "weight", p.weight.shape())),
    }
}

/// y [rows, n] for x [rows, k]; the other dimensions of x are kept.
///
/// ```
/// use pheye_ops::linear::{self, Linear};
/// use pheye_ops::tensor::{Param, Tensor};
/// use pheye_ops::Cx;
///
/// let weight = Param::frozen("weight", Tensor::from_f32([1, 2], &[2.0, 3.0])?);
/// let (y, _saved) =
///     linear::forward(&Cx::cpu(), &Tensor::from_f32([1, 2], &[1.0, 10.0])?, &Linear { weight, bias: None })?;
/// assert_eq!(y.f32()?, [32.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Shapes`] when x does not have k columns or the bias does not have n elements.
pub fn forward(cx: &Cx, x: &Tensor, p: &Linear) -> Result<(Tensor, Saved)> {
    check_input(x, p)?;
    let mut y = cx.empty(x.shape().with_cols(p.n()))?;
    match cx.device {
        Device::Cpu => cpu::forward(cx, x, p, &mut y)?,
        Device::Gpu(ref gpu) => gpu::gemm(x, p, &y, GemmEpilogue::default())?.run(cx, gpu)?,
    }
    Ok((y, Saved::of(x, p)))
}

/// dx for dy [rows, n]; the gradients of trained parameters are added to `grads`.
///
/// # Errors
/// [`Error::Shapes`] when dy does not fit the weight or the saved x.
pub fn backward(
    cx: &Cx,
    saved: &Saved,
    dy: &Tensor,
    p: &Linear,
    grads: Option<&mut Grads>,
) -> Result<Tensor> {
    backward_params(cx, saved, dy, p, grads)?;
    input_grad(cx, dy, p)
}

/// The gradient of the input, dy W.
pub(crate) fn input_grad(cx: &Cx, dy: &Tensor, p: &Linear) -> Result<Tensor> {
    check_output(dy, p)?;
    let mut dx = cx.empty(dy.shape().with_cols(p.k()))?;
    match cx.device {
        Device::Cpu => cpu::input_grad(dy, p, &mut dx)?,
        Device::Gpu(ref gpu) => gpu::input_grad(cx, gpu, dy, p, &dx, GemmEpilogue::default())?,
    }
    Ok(dx)
}

/// [`backward`] without dx, for the first trained layer of a network.
///
/// # Errors
/// The errors of [`backward`].
pub fn backward_params(
    cx: &Cx,
    saved: &Saved,
    dy: &Tensor,
    p: &Linear,
    grads: Option<&mut Grads>,
) -> Result<()> {
    add_grads(cx, saved.x.as_ref(), dy, p, grads)
}

/// Adds dW and db to `grads`; x must have been saved if W is trained.
pub(crate) fn add_grads(
    cx: &Cx,
    x: Option<&Tensor>,
    dy: &Tensor,
    p: &Linear,
    grads: Option<&mut Grads>,
) -> Result<()> {
    check_output(dy, p)?;
    if let Some(x) = x.filter(|x| x.shape().rows() != dy.shape().rows()) {
        return Err(shapes("dy", dy.shape(), "x", x.shape()));
    }
    let Some(grads) = grads else { return Ok(()) };
    match cx.device {
        Device::Cpu => cpu::add_grads(x, dy, p, grads),
        Device::Gpu(ref gpu) => gpu::add_grads(cx, gpu, x, dy, p, grads),
    }
}
