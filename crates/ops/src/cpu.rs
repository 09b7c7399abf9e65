//! Helpers of the CPU arms of operations: tensors as the matrices and slices that `pheye-cpu` takes.

use half::slice::HalfFloatSliceExt;
use pheye_cpu::mat::MatRef;
use pheye_tensor::{DType, Slice, Tensor};

use crate::{Cx, Result};

/// `t` as a row-major matrix.
pub(crate) fn matrix(t: &Tensor, rows: usize, cols: usize) -> Result<MatRef<'_>> {
    Ok(match t.slice()? {
        Slice::F32(x) => MatRef::f32(x, rows, cols),
        Slice::Bf16(x) => MatRef::bf16(x, rows, cols),
        Slice::Int8(x, scales) => MatRef::int8(x, scales, rows, cols),
    })
}

/// `t` in f32: a view if it is f32 already, otherwise a converted copy.
pub(crate) fn to_f32(cx: &Cx, t: &Tensor) -> Result<Tensor> {
    match t.slice()? {
        Slice::F32(_) => Ok(t.clone()),
        Slice::Bf16(x) => {
            let mut out = cx.empty(t.shape())?;
            x.convert_to_f32_slice(out.f32_mut()?);
            Ok(out)
        }
        Slice::Int8(..) => Ok(t.to_dtype(DType::F32)?),
    }
}
