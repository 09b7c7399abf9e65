//! Copies of rows between matrices: scatter, gather and concatenation.
//!
//! Reads and writes 4 bytes per element. None has a backward of its own: the gradient of concatenated parts are the same
//! rows of the gradient of the whole, that of permuted rows is gathered by the inverse permutation, and that of other
//! rows, if none is gathered twice, is scattered into zeros.

use std::collections::HashSet;

use pheye_tensor::{Device, Shape, Tensor};

use crate::{Cx, Error, Result};

mod cpu;
pub(crate) mod gpu;

fn check(op: &'static str, row: usize, rows: usize) -> Result<()> {
    if row < rows {
        return Ok(());
    }
    Err(Error::Range { op, what: "row", value: row.to_string(), allowed: format!("0..{rows}") })
}

/// Checks that every row of x has a valid row of `into`.
pub(crate) fn check_scatter(into: &Tensor, left: Shape, at: &[usize]) -> Result<()> {
    let right = into.shape();
    if left.cols() != right.cols() || left.rows() != at.len() {
        return Err(Error::Shapes { op: "scatter", left_name: "x", left, right_name: "into", right });
    }
    at.iter().try_for_each(|&row| check("scatter", row, right.rows()))
}

/// `into[at[i]] = x[i]` for the rows of x `[n, d]` and into `[m, d]`.
///
/// # Errors
/// [`Error::Shapes`] when the widths differ or there is not one target for each row, [`Error::Range`] when a target is
/// not a row of `into`.
pub fn scatter(cx: &Cx, into: &mut Tensor, x: &Tensor, at: &[usize]) -> Result<()> {
    check_scatter(into, x.shape(), at)?;
    match &cx.device {
        Device::Cpu => cpu::scatter(into, x, at),
        Device::Gpu(gpu) => gpu::scatter(cx, gpu, into, x, at),
    }
}

/// `y[i] = x[from[i]]`: y `[n, d]` for x `[m, d]`.
///
/// ```
/// use pheye_ops::{Cx, rows, tensor::Tensor};
///
/// let x = Tensor::from_f32([3, 1], &[1.0, 2.0, 3.0])?;
/// assert_eq!(rows::gather(&Cx::cpu(), &x, &[2, 0])?.f32()?, [3.0, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Range`] when an element of `from` is not a row of x.
pub fn gather(cx: &Cx, x: &Tensor, from: &[usize]) -> Result<Tensor> {
    from.iter().try_for_each(|&row| check("gather", row, x.shape().rows()))?;
    match &cx.device {
        Device::Cpu => cpu::gather(cx, x, from),
        Device::Gpu(gpu) => gpu::gather(cx, gpu, x, from),
    }
}

/// Concatenates `parts` along the rows.
///
/// # Errors
/// [`Error::Shapes`] when the widths differ.
pub fn concat(cx: &Cx, parts: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = parts.first() else { return cx.empty([0, 0]) };
    let d = first.shape().cols();
    if let Some(other) = parts.iter().find(|p| p.shape().cols() != d) {
        let (left, right) = (first.shape(), other.shape());
        return Err(Error::Shapes { op: "concat", left_name: "first", left, right_name: "other", right });
    }
    let shape = [parts.iter().map(|p| p.shape().rows()).sum(), d];
    match &cx.device {
        Device::Cpu => cpu::concat(cx, parts, shape),
        Device::Gpu(gpu) => gpu::concat(cx, gpu, parts, shape, first.dtype()),
    }
}

/// The rows of x to move, and their targets. Of several rows with the same target only the last is moved, as if they
/// were moved in order.
pub(crate) fn last_of_each(at: &[usize]) -> (Option<Vec<u32>>, Vec<u32>) {
    let mut seen = HashSet::with_capacity(at.len());
    let keep: Vec<usize> = (0..at.len()).rev().filter(|&i| seen.insert(at[i])).collect();
    if keep.len() == at.len() {
        return (None, at.iter().map(|&row| row as u32).collect());
    }
    (Some(keep.iter().map(|&i| i as u32).collect()), keep.iter().map(|&i| at[i] as u32).collect())
}
