//! GELU (Hendrycks and Gimpel, arXiv 1606.08415), elementwise, in the three variants that checkpoints use.
//!
//! y = gelu(x), dx = dy·gelu′(x). Saves x (shared, not copied). Forward reads 4 and writes 4 bytes per element;
//! backward reads 8 and writes 4. About 20 FLOPs per element each.

use pheye_cpu::gelu as cpu;
use pheye_kernels::params::{GeluBwd, GeluFwd};
use pheye_tensor::{Device, Gpu, Tensor};

use crate::gpu::{by_dtype, typed};
use crate::{Cx, Error, Result};

pub use pheye_cpu::gelu::Gelu;

/// The input, which backward needs.
#[derive(Debug)]
pub struct Saved {
    pub(crate) x: Tensor,
}

impl Saved {
    /// Recomputes y.
    ///
    /// # Errors
    /// The errors of [`forward`].
    pub fn again(&self, cx: &Cx, kind: Gelu) -> Result<Tensor> {
        forward(cx, &self.x, kind).map(|(y, _)| y)
    }
}

/// y, with the shape of x.
///
/// ```
/// use pheye_ops::gelu::{self, Gelu};
/// use pheye_ops::{Cx, tensor::Tensor};
///
/// let x = Tensor::from_f32([2], &[0.0, 10.0])?;
/// let (y, saved) = gelu::forward(&Cx::cpu(), &x, Gelu::Tanh)?;
/// assert_eq!(y.f32()?, [0.0, 10.0]);
/// let dy = Tensor::from_f32([2], &[1.0; 2])?;
/// assert_eq!(gelu::backward(&Cx::cpu(), &saved, &dy, Gelu::Tanh)?.f32()?, [0.5, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When x is not on the context's device or its element type is not supported, or a GPU fails.
pub fn forward(cx: &Cx, x: &Tensor, kind: Gelu) -> Result<(Tensor, Saved)> {
    match &cx.device {
        Device::Cpu => {
            let mut y = cx.empty(x.shape())?;
            cpu::forward(y.f32_mut()?, x.f32()?, kind);
            Ok((y, Saved { x: x.clone() }))
        }
        Device::Gpu(gpu) => Ok((forward_gpu(cx, gpu, x, kind)?, Saved { x: x.clone() })),
    }
}

/// dx, with the shape of dy.
///
/// # Errors
/// [`Error::Shapes`] when dy and y differ in size.
pub fn backward(cx: &Cx, saved: &Saved, dy: &Tensor, kind: Gelu) -> Result<Tensor> {
    let (left, right) = (dy.shape(), saved.x.shape());
    if left.elements() != right.elements() {
        return Err(Error::Shapes { op: "gelu", left_name: "dy", left, right_name: "x", right });
    }
    match &cx.device {
        Device::Cpu => {
            let mut dx = cx.empty(left)?;
            cpu::backward(dx.f32_mut()?, dy.f32()?, saved.x.f32()?, kind);
            Ok(dx)
        }
        Device::Gpu(gpu) => backward_gpu(cx, gpu, &saved.x, dy, kind),
    }
}

/// The value that selects this variant in the kernels (`include/gelu.cuh`).
pub(crate) fn number(kind: Gelu) -> i32 {
    match kind {
        Gelu::Exact => 1,
        Gelu::Tanh => 2,
        Gelu::Quick => 3,
    }
}

fn forward_gpu(cx: &Cx, gpu: &Gpu, x: &Tensor, kind: Gelu) -> Result<Tensor> {
    let (dtype, n) = (x.dtype(), x.shape().elements());
    let y = cx.empty_as(x.shape(), dtype)?;
    let mut l = gpu.launch(by_dtype(dtype, "gelu_fwd_bf16", "gelu_fwd_f32")?)?;
    let (from, to) = (l.read(x.region()?), l.write(y.region()?));
    let grid = [n.div_ceil(l.spec().tile[0]), 1, 1];
    l.run(grid, &GeluFwd { x: from, y: to, n: n as u64, kind: number(kind) })?;
    Ok(y)
}

fn backward_gpu(cx: &Cx, gpu: &Gpu, x: &Tensor, dy: &Tensor, kind: Gelu) -> Result<Tensor> {
    let (dtype, n) = (dy.dtype(), dy.shape().elements());
    let dx = cx.empty_as(dy.shape(), dtype)?;
    let mut l = gpu.launch(by_dtype(dtype, "gelu_bwd_bf16", "gelu_bwd_f32")?)?;
    let (dy, x) = (l.read(dy.region()?), l.read(typed(x, dtype)?));
    let p = GeluBwd { dy, x, dx: l.write(dx.region()?), n: n as u64, kind: number(kind) };
    let grid = [n.div_ceil(l.spec().tile[0]), 1, 1];
    l.run(grid, &p)?;
    Ok(dx)
}
