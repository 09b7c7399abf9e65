//! Elementwise sum of two tensors, for residual connections and for gradients of a tensor with several uses; and a
//! tensor times a scalar.
//!
//! y = a + b. Saves nothing: the gradient of both a and b is dy. Reads 8 bytes and writes 4 bytes per element.

use pheye_cpu::par;
use pheye_kernels::params::{Add, Scale};
use pheye_tensor::{Device, Gpu, Tensor};

use crate::gpu::{by_dtype, in_place, typed};
use crate::{Cx, Error, Result};

/// Number of elements that one task processes.
const PIECE: usize = 1 << 13;

/// a + b, written to the memory of `a` if no other tensor shares it.
///
/// ```
/// use pheye_ops::{Cx, add, tensor::Tensor};
///
/// let (a, b) = (Tensor::from_f32([2], &[1.0, 2.0])?, Tensor::from_f32([2], &[10.0, 20.0])?);
/// assert_eq!(add::forward(&Cx::cpu(), a, &b)?.f32()?, [11.0, 22.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Shapes`] when the numbers of elements differ.
pub fn forward(cx: &Cx, mut a: Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape().elements() != b.shape().elements() {
        return Err(Error::Shapes {
            op: "add",
            left_name: "a",
            left: a.shape(),
            right_name: "b",
            right: b.shape(),
        });
    }
    match &cx.device {
        Device::Cpu => {
            let b = b.f32()?;
            if let Ok(y) = a.f32_mut() {
                par::rows(y, 1, PIECE, b.len(), |first, y| {
                    y.iter_mut().zip(&b[first..]).for_each(|(y, b)| *y += b)
                });
                return Ok(a);
            }
            let mut out = cx.empty(a.shape())?;
            let a = a.f32()?;
            par::rows(out.f32_mut()?, 1, PIECE, b.len(), |first, y| {
                y.iter_mut().zip(&a[first..]).zip(&b[first..]).for_each(|((y, a), b)| *y = a + b);
            });
            Ok(out)
        }
        Device::Gpu(gpu) => add_gpu(cx, gpu, a, b),
    }
}

/// Adds `b` to the accumulator `sum`, which starts as `None`.
///
/// # Errors
/// [`Error::Shapes`] when the numbers of elements differ.
pub fn accumulate(cx: &Cx, sum: &mut Option<Tensor>, b: Tensor) -> Result<()> {
    *sum = Some(match sum.take() {
        Some(a) => forward(cx, a, &b)?,
        None => b,
    });
    Ok(())
}

/// s·a, written to the memory of `a` if no other tensor shares it.
///
/// # Errors
/// When `a` is not on the context's device, has an unsupported element type, or a GPU fails.
pub fn scale(cx: &Cx, mut a: Tensor, s: f32) -> Result<Tensor> {
    match &cx.device {
        Device::Cpu => {
            if a.f32_mut().is_err() {
                a = Tensor::from_f32(a.shape(), a.f32()?)?;
            }
            a.f32_mut()?.iter_mut().for_each(|v| *v *= s);
            Ok(a)
        }
        Device::Gpu(gpu) => scale_gpu(cx, gpu, a, s),
    }
}

fn add_gpu(cx: &Cx, gpu: &Gpu, a: Tensor, b: &Tensor) -> Result<Tensor> {
    let (dtype, n) = (a.dtype(), a.shape().elements());
    let mut l = gpu.launch(by_dtype(dtype, "add_fwd_bf16", "add_fwd_f32")?)?;
    let b = l.read(typed(b, dtype)?);
    let (from, to, y) = in_place(cx, &mut l, a)?;
    let grid = [n.div_ceil(l.spec().tile[0]), 1, 1];
    l.run(grid, &Add { a: from, b, y: to, n: n as u64 })?;
    Ok(y)
}

fn scale_gpu(cx: &Cx, gpu: &Gpu, a: Tensor, s: f32) -> Result<Tensor> {
    let (dtype, n) = (a.dtype(), a.shape().elements());
    let mut l = gpu.launch(by_dtype(dtype, "scale_fwd_bf16", "scale_fwd_f32")?)?;
    let (from, to, y) = in_place(cx, &mut l, a)?;
    let grid = [n.div_ceil(l.spec().tile[0]), 1, 1];
    l.run(grid, &Scale { a: from, y: to, n: n as u64, s })?;
    Ok(y)
}
