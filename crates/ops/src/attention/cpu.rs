//! Attention on the CPU.

use pheye_cpu::attention::{self, Output, Qkv};
use pheye_cpu::mat::{MatMut, MatRef};
use pheye_tensor::{DType, Tensor};

use super::{Heads, Kv, Saved, Span, borrowed};
use crate::cpu::matrix;
use crate::{Cx, Result};

/// o, and the maximum and the denominator of each softmax, [heads, rows, 2].
pub(super) fn forward(
    cx: &Cx,
    q: &Tensor,
    kv: Kv<&Tensor>,
    spans: &[Span],
    heads: &Heads,
) -> Result<(Tensor, Tensor)> {
    let mut out = cx.empty(q.shape())?;
    let mut softmax_stats = cx.empty([heads.heads, q.shape().rows(), 2])?;
    let pairs = softmax_stats.f32_mut()?.as_chunks_mut().0;
    attention::forward(out.f32_mut()?, pairs, qkv(q, kv, heads)?, spans, heads);
    Ok((out, softmax_stats))
}

/// dq, and dk and dv in the layout of k and v.
pub(super) fn backward(
    cx: &Cx,
    saved: &Saved,
    dout: &Tensor,
    spans: &[Span],
    heads: &Heads,
) -> Result<(Tensor, Kv<Tensor>)> {
    let Saved { q, kv, out, softmax_stats } = saved;
    let kv = borrowed(kv);
    let mut dq = cx.empty(q.shape())?;
    let mut dkv = match kv {
        Kv::Split { k, v } => Kv::Split { k: cx.empty(k.shape())?, v: cx.empty(v.shape())? },
        Kv::Fused(kv) => Kv::Fused(cx.empty(kv.shape())?),
    };
    let to = match &mut dkv {
        Kv::Split { k, v } => Kv::Split { k: operand_mut(k)?, v: operand_mut(v)? },
        Kv::Fused(kv) => Kv::Fused(operand_mut(kv)?),
    };
    let softmax_stats = softmax_stats.f32()?.as_chunks().0;
    let y = Output { out: out.f32()?, softmax_stats, dout: dout.f32()? };
    attention::backward(dq.f32_mut()?, to, qkv(q, kv, heads)?, y, spans, heads);
    Ok((dq, dkv))
}

fn qkv<'a>(q: &'a Tensor, kv: Kv<&'a Tensor>, heads: &Heads) -> Result<Qkv<'a>> {
    let kv = match kv {
        Kv::Split { k, v } => Kv::Split { k: operand(k)?, v: operand(v)? },
        Kv::Fused(kv) => Kv::Fused(operand(kv)?),
    };
    let (k, v) = kv.parts(heads.width());
    Ok(Qkv { q: operand(q)?, k, v })
}

fn operand(t: &Tensor) -> Result<MatRef<'_>> {
    let (rows, cols) = (t.shape().rows(), t.shape().cols());
    match t.dtype() {
        DType::Bf16 => matrix(t, rows, cols),
        // For int8, `f32()` returns the error: attention does not support it.
        DType::F32 | DType::Int8 => Ok(MatRef::f32(t.f32()?, rows, cols)),
    }
}

fn operand_mut(t: &mut Tensor) -> Result<MatMut<'_>> {
    let row_stride = t.shape().cols();
    Ok(MatMut { data: t.f32_mut()?, row_stride })
}
