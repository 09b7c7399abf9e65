//! GELU (arXiv 1606.08415), elementwise, in the three forms that checkpoints use.
//!
//! y = gelu(x), dx = dy·gelu′(x). Saved is x (shared, not copied). Forward reads 4 and writes 4 bytes an element;
//! backward reads 8 and writes 4. About 20 FLOPs an element each way.

use pheye_cpu::gelu as cpu;
use pheye_tensor::{Device, Tensor};

use crate::{Cx, Error, Result};

pub use pheye_cpu::gelu::Gelu;

/// What backward needs.
#[derive(Debug)]
pub struct Saved {
    x: Tensor,
}

/// y of the shape of x.
///
/// # Errors
/// Those of the tensor.
pub fn forward(cx: &Cx, x: &Tensor, kind: Gelu) -> Result<(Tensor, Saved)> {
    match cx.device {
        Device::Cpu => {
            let mut y = cx.empty(x.shape())?;
            cpu::forward(y.f32_mut()?, x.f32()?, kind);
            Ok((y, Saved { x: x.clone() }))
        }
        Device::Gpu(_) => return Err(Error::CpuOnly { op: "gelu" }),
    }
}

/// dx of the shape of dy.
///
/// # Errors
/// [`Error::Shapes`] when dy is not of the size of y.
pub fn backward(cx: &Cx, saved: &Saved, dy: &Tensor, kind: Gelu) -> Result<Tensor> {
    let (left, right) = (dy.shape(), saved.x.shape());
    if left.elements() != right.elements() {
        return Err(Error::Shapes { op: "gelu", left_name: "dy", left, right_name: "x", right });
    }
    match cx.device {
        Device::Cpu => {
            let mut dx = cx.empty(left)?;
            cpu::backward(dx.f32_mut()?, dy.f32()?, saved.x.f32()?, kind);
            Ok(dx)
        }
        Device::Gpu(_) => return Err(Error::CpuOnly { op: "gelu" }),
    }
}
