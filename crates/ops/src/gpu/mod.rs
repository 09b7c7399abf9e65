//! Helpers of the GPU arms of operations: kernels by element type, regions with a checked type, reading results back,
//! partial sums.

pub(crate) mod gemm;

use pheye_kernels::params::SumRows;
use pheye_kernels::{In, Out};
use pheye_tensor::{DType, Error as TensorError, Gpu, Launch, Region, Shape, Tensor};

use crate::{Cx, Error, Result};

impl Cx {
    /// An uninitialised tensor of type `dtype`; the caller writes every element.
    pub(crate) fn empty_as(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        Ok(Tensor::empty(&self.arena, shape, dtype)?)
    }
}

/// The kernel for activations of type `dtype`; there is none for int8.
pub(crate) fn by_dtype(dtype: DType, bf16: &'static str, f32: &'static str) -> Result<&'static str> {
    match dtype {
        DType::Bf16 => Ok(bf16),
        DType::F32 => Ok(f32),
        DType::Int8 => {
            let (value, allowed) = (format!("{dtype}"), "bf16 or f32".to_owned());
            Err(Error::Range { op: f32, what: "element type", value, allowed })
        }
    }
}

/// The region of `t`, which must be of type `dtype`.
pub(crate) fn typed(t: &Tensor, dtype: DType) -> Result<Region> {
    match t.dtype() == dtype {
        true => Ok(t.region()?),
        false => Err(TensorError::DType { shape: t.shape(), found: t.dtype(), expected: dtype }.into()),
    }
}

/// Downloads the u32 values that a kernel wrote to the memory of an f32 tensor.
pub(crate) fn read_words(gpu: &Gpu, t: &Tensor) -> Result<Vec<u32>> {
    let mut words = vec![0u32; t.shape().elements()];
    gpu.download(typed(t, DType::F32)?, bytemuck::cast_slice_mut(&mut words))?;
    Ok(words)
}

/// Declares an optional tensor that a kernel reads; a null address if there is none.
pub(crate) fn read_optional(l: &mut Launch, t: Option<&Tensor>, dtype: DType) -> Result<In> {
    t.map_or(Ok(In::NULL), |t| Ok(l.read(typed(t, dtype)?)))
}

/// Declares an operand that a kernel reads element by element, and its result: the memory of `x` itself if nothing else refers to
/// it, otherwise a new tensor of the same shape and type. Returns both addresses and the result.
pub(crate) fn in_place(cx: &Cx, l: &mut Launch, x: Tensor) -> Result<(In, Out, Tensor)> {
    if x.is_sole_view() {
        let both = l.update(x.region()?);
        return Ok((both.input(), both, x));
    }
    let y = cx.empty_as(x.shape(), x.dtype())?;
    Ok((l.read(x.region()?), l.write(y.region()?), y))
}

/// The number of threads of a kernel in which each thread handles up to eight consecutive elements of a row.
pub(crate) fn vectors_of_8(rows: usize, cols: usize) -> usize {
    rows * cols.div_ceil(8)
}

/// `y[c] += Σ x[i, first + c]` over the rows of `x`, f32: the second pass of a reduction across blocks.
pub(crate) fn add_partial_rows(gpu: &Gpu, y: &Tensor, x: &Tensor, first: usize) -> Result<()> {
    let (rows, stride, cols) = (x.shape().rows(), x.shape().cols(), y.shape().elements());
    if rows == 0 {
        return Ok(());
    }
    let mut l = gpu.launch("sum_rows_f32")?;
    let tail = x.view(first, [(rows - 1) * stride + cols])?;
    let p = SumRows {
        x: l.read(typed(&tail, DType::F32)?),
        y: l.update(typed(y, DType::F32)?),
        rows: rows as i32,
        cols: cols as i32,
        stride: stride as i32,
    };
    let grid = [cols.div_ceil(l.spec().tile[0]), 1, 1];
    Ok(l.run(grid, &p)?)
}
