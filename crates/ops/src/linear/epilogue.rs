//! A linear with an epilogue. In forward it is GELU and a residual sum; in backward, the derivative of GELU and a sum,
//! applied to the gradient of the input. On a GPU both run in the epilogue of the GEMM, while the result is in
//! registers, so that u = x Wᵀ + b is written once and never read in forward. On the CPU they run as separate
//! operations.

use pheye_tensor::{Device, Grads, Tensor};

use super::{Linear, Saved, backward, backward_params, check_input, check_output, forward, gpu};
use crate::gelu::{self, Gelu};
use crate::gpu::gemm::Gemm;
use crate::{Cx, Error, Result};

/// Epilogue of forward: y = gelu(u) + residual for u = x Wᵀ + b.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// The activation, if there is one.
    pub gelu: Option<Gelu>,
    /// Residual, with the shape of y.
    pub residual: Option<&'a Tensor>,
    /// Whether to save u for backward. [`Cx::inference`] overrides it.
    pub keep: bool,
}

/// Epilogue of backward: dx = g·gelu′(u) + sum for g = dy W.
#[derive(Debug, Clone, Copy, Default)]
pub struct BackwardEpilogue<'a> {
    /// The activation that produced x, if there is one: its saved input u and its variant.
    pub gelu: Option<(&'a gelu::Saved, Gelu)>,
    /// Summand, with the shape of x.
    pub sum: Option<&'a Tensor>,
}

fn same_size(
    op: &'static str,
    left: (&'static str, &Tensor),
    right: (&'static str, usize, &Tensor),
) -> Result<()> {
    let ((left_name, a), (right_name, cols, b)) = (left, right);
    match a.shape().elements() == b.shape().rows() * cols {
        true => Ok(()),
        false => {
            let right = b.shape().with_cols(cols);
            Err(Error::Shapes { op, left_name, left: a.shape(), right_name, right })
        }
    }
}

impl<'a> Epilogue<'a> {
    /// The activation `kind`, with u saved for backward.
    pub fn gelu(kind: Gelu) -> Epilogue<'a> {
        Epilogue { gelu: Some(kind), keep: true, residual: None }
    }

    /// A residual sum.
    pub fn residual(residual: &'a Tensor) -> Epilogue<'a> {
        Epilogue { residual: Some(residual), ..Epilogue::default() }
    }

    /// Checks that the residual has the shape of y, n columns for each row of x.
    pub(crate) fn check(&self, op: &'static str, x: &Tensor, n: usize) -> Result<()> {
        self.residual.map_or(Ok(()), |r| same_size(op, ("residual", r), ("y", n, x)))
    }
}

impl<'a> BackwardEpilogue<'a> {
    /// A sum with `sum`.
    pub fn sum(sum: &'a Tensor) -> BackwardEpilogue<'a> {
        BackwardEpilogue { sum: Some(sum), gelu: None }
    }

    /// Checks that sum and u have the shape of x, k columns for each row of dy.
    pub(crate) fn check(&self, op: &'static str, dy: &Tensor, k: usize) -> Result<()> {
        self.gelu.map_or(Ok(()), |(u, _)| same_size(op, ("u", &u.x), ("dx", k, dy)))?;
        self.sum.map_or(Ok(()), |s| same_size(op, ("sum", s), ("dx", k, dy)))
    }
}

/// y, the values that backward needs, and the pre-activation u if it is saved.
pub type Output = (Tensor, Saved, Option<gelu::Saved>);

/// [`forward`] with an epilogue.
///
/// # Errors
/// The errors of [`forward`], and [`Error::Shapes`] when residual and y differ in size.
pub fn forward_with(cx: &Cx, x: &Tensor, p: &Linear, after: Epilogue) -> Result<Output> {
    let [output] = forward_several(cx, x, [(p, after)])?;
    Ok(output)
}

/// [`forward_with`] for several linears of the same x, such as q, k and v. On a GPU it is one launch if that fills the
/// GPU better.
///
/// # Errors
/// The errors of [`forward_with`].
pub fn forward_several<const N: usize>(
    cx: &Cx,
    x: &Tensor,
    ps: [(&Linear, Epilogue); N],
) -> Result<[Output; N]> {
    let (mut outputs, mut gemms) = (Vec::with_capacity(N), Vec::with_capacity(N));
    for (p, after) in ps {
        check_input(x, p)?;
        after.check("linear", x, p.n())?;
        if let Device::Cpu = cx.device {
            let (u, saved) = forward(cx, x, p)?;
            let (y, u) = after.apply(cx, u)?;
            outputs.push((y, saved, u));
            continue;
        }
        let y = cx.empty(x.shape().with_cols(p.n()))?;
        let (epilogue, u) = after.epilogue(cx, &y)?;
        gemms.push(gpu::gemm(x, p, &y, epilogue)?);
        outputs.push((y, Saved::of(x, p), u));
    }
    if let Device::Gpu(gpu) = &cx.device {
        Gemm::run_several(&gemms, cx, gpu)?;
    }
    Ok(into_array(outputs))
}

/// Converts a list of N elements to an array.
pub(crate) fn into_array<T, const N: usize>(all: Vec<T>) -> [T; N] {
    match all.try_into() {
        Ok(all) => all,
        Err(_) => unreachable!("N items"),
    }
}

/// [`backward`] with an epilogue.
///
/// # Errors
/// The errors of [`backward`], and [`Error::Shapes`] when the sum or u differs from x in size.
pub fn backward_with(
    cx: &Cx,
    saved: &Saved,
    dy: &Tensor,
    p: &Linear,
    before: BackwardEpilogue,
    grads: Option<&mut Grads>,
) -> Result<Tensor> {
    check_output(dy, p)?;
    before.check("linear", dy, p.k())?;
    if let Device::Gpu(gpu) = &cx.device {
        backward_params(cx, saved, dy, p, grads)?;
        let dx = cx.empty(dy.shape().with_cols(p.k()))?;
        gpu::input_grad(cx, gpu, dy, p, &dx, before.epilogue()?)?;
        return Ok(dx);
    }
    before.apply(cx, backward(cx, saved, dy, p, grads)?)
}
