//! The linear on a GPU: each GEMM is one launch (two with split-K), with the bias and the fused operations in its
//! epilogue.

use pheye_tensor::{DType, Gpu, Grads, Region, Tensor};

use super::{BackwardEpilogue, Epilogue, Linear};
use crate::gpu::gemm::{Gemm, GemmEpilogue, Layout, MatOperand, Output, add_column_sums};
use crate::gpu::typed;
use crate::{Cx, Result, gelu};

/// The whole bf16 activation `t` as the output of a GEMM, assigned.
pub(crate) fn activation(t: &Tensor) -> Result<Output> {
    let dtype = DType::Bf16;
    Ok(Output { region: typed(t, dtype)?, ld: t.shape().cols(), dtype, add: false })
}

/// The bias of a linear, f32.
pub(crate) fn bias(p: &Linear) -> Result<Option<Region>> {
    p.bias.as_ref().map(|b| typed(&b.value, DType::F32)).transpose()
}

/// The GEMM y = f(x Wᵀ + b). The caller sets all of `epilogue` except the bias.
pub(crate) fn gemm(x: &Tensor, p: &Linear, y: &Tensor, epilogue: GemmEpilogue) -> Result<Gemm> {
    let (k, n) = (p.k(), p.n());
    let dims = [x.shape().rows(), n, k];
    let w = MatOperand::with(p.weight.matrix(), k)?;
    let call = Gemm::new(Layout::Nt, dims, MatOperand::of(x)?, w, activation(y)?);
    Ok(Gemm { epilogue: GemmEpilogue { bias: bias(p)?, ..epilogue }, ..call })
}

/// dx = f(dy W).
pub(crate) fn input_grad(
    cx: &Cx,
    gpu: &Gpu,
    dy: &Tensor,
    p: &Linear,
    dx: &Tensor,
    epilogue: GemmEpilogue,
) -> Result<()> {
    let (k, n) = (p.k(), p.n());
    let dims = [dy.shape().rows(), k, n];
    let w = MatOperand::with(p.weight.matrix(), k)?;
    let mut call = Gemm::new(Layout::Nn, dims, MatOperand::of(dy)?, w, activation(dx)?);
    call.epilogue = epilogue;
    call.run(cx, gpu)
}

/// dW += dyᵀ x and db += Σ dy, where they are trained.
pub(crate) fn add_grads(
    cx: &Cx,
    gpu: &Gpu,
    x: Option<&Tensor>,
    dy: &Tensor,
    p: &Linear,
    grads: &Grads,
) -> Result<()> {
    let (m, k, n) = (dy.shape().rows(), p.k(), p.n());
    if let (Some(x), Some(dw)) = (x, grads.view(&p.weight)?) {
        let c = Output { region: dw.region()?, ld: k, dtype: DType::F32, add: true };
        Gemm::new(Layout::Tn, [n, k, m], MatOperand::of(dy)?, MatOperand::of(x)?, c).run(cx, gpu)?;
    }
    if let Some(db) = p.bias.as_ref().map(|b| grads.view(b)).transpose()?.flatten() {
        add_column_sums(cx, gpu, db.region()?, dy)?;
    }
    Ok(())
}

impl Epilogue<'_> {
    /// The epilogue of the GEMM, with memory for u if u is saved.
    pub(crate) fn epilogue(&self, cx: &Cx, y: &Tensor) -> Result<(GemmEpilogue, Option<gelu::Saved>)> {
        let u = match self.gelu {
            Some(_) if self.keep && cx.saves() => Some(cx.empty(y.shape())?),
            _ => None,
        };
        let epilogue = GemmEpilogue {
            activation: self.gelu,
            pre: u.as_ref().map(Tensor::region).transpose()?,
            residual: self.residual.map(|r| typed(r, DType::Bf16)).transpose()?,
            ..GemmEpilogue::default()
        };
        Ok((epilogue, u.map(|x| gelu::Saved { x })))
    }
}

impl BackwardEpilogue<'_> {
    /// The epilogue of the GEMM.
    pub(crate) fn epilogue(&self) -> Result<GemmEpilogue> {
        let slope = self.gelu.map(|(u, kind)| typed(&u.x, DType::Bf16).map(|u| (u, kind)));
        let residual = self.sum.map(|s| typed(s, DType::Bf16)).transpose()?;
        Ok(GemmEpilogue { slope: slope.transpose()?, residual, ..GemmEpilogue::default() })
    }
}
