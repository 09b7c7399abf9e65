//! Embedding lookup on the CPU.

use pheye_cpu::embedding;
use pheye_tensor::{Param, Slice, Tensor};

use crate::cpu::to_f32;
use crate::{Cx, Result};

/// y [n, d].
pub(super) fn forward(cx: &Cx, ids: &[u32], table: &Param) -> Result<Tensor> {
    let d = table.shape().cols();
    let mut y = cx.empty([ids.len(), d])?;
    match table.value.slice()? {
        Slice::F32(t) => embedding::forward(y.f32_mut()?, d, ids, t),
        Slice::Bf16(t) => embedding::forward_bf16(y.f32_mut()?, d, ids, t),
        Slice::Int8(..) => embedding::forward(y.f32_mut()?, d, ids, to_f32(cx, &table.value)?.f32()?),
    }
    Ok(y)
}

/// Adds dy to the rows of dtable, in the order of i.
pub(super) fn backward(ids: &[u32], dy: &Tensor, dtable: &mut [f32]) -> Result<()> {
    embedding::backward(dtable, dy.shape().cols(), ids, dy.f32()?);
    Ok(())
}
