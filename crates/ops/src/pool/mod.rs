//! Mean pooling over groups of consecutive rows: one vector for the tokens of an image or of a caption.
//!
//! `y[g] = Σ x[rows of g] / n(g)` and `dx[row of g] = dy[g] / n(g)`. Saves nothing. Reads or writes 4 bytes per element
//! of x.

use pheye_tensor::{Device, Tensor};

use crate::{Cx, Error, Result};

mod cpu;
mod gpu;

/// y [groups, d] for x [rows, d]; group g has `lengths[g]` rows, at least one.
///
/// ```
/// use pheye_ops::{Cx, pool, tensor::Tensor};
///
/// // The means of the first two rows and of the last one.
/// let x = Tensor::from_f32([3, 1], &[1.0, 3.0, 7.0])?;
/// assert_eq!(pool::forward(&Cx::cpu(), &x, &[2, 1])?.f32()?, [2.0, 7.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Range`] when the lengths do not sum to the number of rows of x, or one of them is 0.
pub fn forward(cx: &Cx, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    check(lengths, x.shape().rows())?;
    match &cx.device {
        Device::Cpu => cpu::forward(cx, x, lengths),
        Device::Gpu(gpu) => gpu::forward(cx, gpu, x, lengths),
    }
}

/// dx [rows, d] for dy [groups, d].
///
/// # Errors
/// [`Error::Range`] when there is not one length for each row of dy, or one of them is 0.
pub fn backward(cx: &Cx, dy: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    if dy.shape().rows() != lengths.len() {
        return Err(length_error(format!("{} groups", lengths.len()), dy.shape().rows()));
    }
    check(lengths, lengths.iter().sum())?;
    match &cx.device {
        Device::Cpu => cpu::backward(cx, dy, lengths),
        Device::Gpu(gpu) => gpu::backward(cx, gpu, dy, lengths),
    }
}

fn check(lengths: &[usize], rows: usize) -> Result<()> {
    let sum: usize = lengths.iter().sum();
    match sum == rows && !lengths.contains(&0) {
        true => Ok(()),
        false => Err(length_error(format!("{lengths:?}"), rows)),
    }
}

fn length_error(value: String, rows: usize) -> Error {
    Error::Range {
        op: "pool",
        what: "lengths",
        value,
        allowed: format!("positive lengths that make {rows} rows"),
    }
}
