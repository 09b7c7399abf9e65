//! The linear on the CPU: one GEMM each for y, dx and dW, and the epilogue as separate operations.

use pheye_cpu::gemm::{Init, add_column_sums, gemm};
use pheye_cpu::mat::MatRef;
use pheye_tensor::{Grads, Tensor};

use super::{BackwardEpilogue, Epilogue, Linear};
use crate::cpu::{matrix, to_f32};
use crate::{Cx, Result, add, gelu};

/// y = x Wᵀ + b.
pub(super) fn forward(cx: &Cx, x: &Tensor, p: &Linear, y: &mut Tensor) -> Result<()> {
    let (m, k, n) = (x.shape().rows(), p.k(), p.n());
    let bias = p.bias.as_ref().map(|b| to_f32(cx, &b.value)).transpose()?;
    let init = bias.as_ref().map(Tensor::f32).transpose()?.map_or(Init::Zero, Init::Bias);
    let w = matrix(&p.weight.value, n, k)?;
    gemm(y.f32_mut()?, n, init, 1.0, MatRef::f32(x.f32()?, m, k), w.t());
    Ok(())
}

/// dx = dy W.
pub(super) fn input_grad(dy: &Tensor, p: &Linear, dx: &mut Tensor) -> Result<()> {
    let (m, k, n) = (dy.shape().rows(), p.k(), p.n());
    let w = matrix(&p.weight.value, n, k)?;
    gemm(dx.f32_mut()?, k, Init::Zero, 1.0, MatRef::f32(dy.f32()?, m, n), w);
    Ok(())
}

/// dW += dyᵀ x and db += Σ dy, where they are trained.
pub(super) fn add_grads(x: Option<&Tensor>, dy: &Tensor, p: &Linear, grads: &mut Grads) -> Result<()> {
    let (m, k, n) = (dy.shape().rows(), p.k(), p.n());
    if let (Some(x), Some(dw)) = (x, grads.of(&p.weight)?) {
        let dy = MatRef::f32(dy.f32()?, m, n);
        gemm(dw, k, Init::Accumulate, 1.0, dy.t(), MatRef::f32(x.f32()?, m, k));
    }
    if let Some(db) = p.bias.as_ref().map(|b| grads.of(b)).transpose()?.flatten() {
        add_column_sums(db, dy.f32()?);
    }
    Ok(())
}

impl Epilogue<'_> {
    /// y, and the pre-activation u if it is saved.
    pub(crate) fn apply(&self, cx: &Cx, u: Tensor) -> Result<(Tensor, Option<gelu::Saved>)> {
        let (y, saved) = match self.gelu {
            Some(kind) => {
                let (y, saved) = gelu::forward(cx, &u, kind)?;
                (y, (self.keep && cx.saves()).then_some(saved))
            }
            None => (u, None),
        };
        match self.residual {
            Some(r) => Ok((add::forward(cx, y, r)?, saved)),
            None => Ok((y, saved)),
        }
    }
}

impl BackwardEpilogue<'_> {
    /// dx, from the GEMM's result dy W.
    pub(crate) fn apply(&self, cx: &Cx, dx: Tensor) -> Result<Tensor> {
        let dx = match self.gelu {
            Some((u, kind)) => gelu::backward(cx, u, &dx, kind)?,
            None => dx,
        };
        match self.sum {
            Some(sum) => add::forward(cx, dx, sum),
            None => Ok(dx),
        }
    }
}
