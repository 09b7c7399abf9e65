//! Rows moved between matrices: into a cache, out of a batch, one matrix after another.
//!
//! Pure copies, reading and writing 4 bytes an element. None has a backward: each is used where no gradient flows, or
//! on gradients themselves.

use pheye_tensor::{Device, Tensor};

use crate::{Cx, Error, Result};

fn check(op: &'static str, row: usize, rows: usize) -> Result<()> {
    if row < rows {
        return Ok(());
    }
    Err(Error::Range { op, what: "row", value: row.to_string(), allowed: format!("0..{rows}") })
}

/// `into[at[i]] = x[i]` for the rows of x `[n, d]` and into `[m, d]`.
///
/// # Errors
/// [`Error::Shapes`] when widths or the number of rows differ, [`Error::Range`] for a row that `into` does not have.
pub fn scatter(cx: &Cx, into: &mut Tensor, x: &Tensor, at: &[usize]) -> Result<()> {
    let (left, right) = (x.shape(), into.shape());
    let (d, m) = (right.cols(), right.rows());
    if left.cols() != d || left.rows() != at.len() {
        return Err(Error::Shapes { op: "scatter", left_name: "x", left, right_name: "into", right });
    }
    at.iter().try_for_each(|&row| check("scatter", row, m))?;
    match cx.device {
        Device::Cpu => {
            let into = into.f32_mut()?;
            for (row, &to) in x.f32()?.chunks_exact(d).zip(at) {
                into[to * d..(to + 1) * d].copy_from_slice(row);
            }
            Ok(())
        }
        Device::Gpu(_) => return Err(Error::CpuOnly { op: "rows" }),
    }
}

/// `y[i] = x[from[i]]`: y `[n, d]` of x `[m, d]`.
///
/// # Errors
/// [`Error::Range`] for a row that x does not have.
pub fn gather(cx: &Cx, x: &Tensor, from: &[usize]) -> Result<Tensor> {
    let (d, m) = (x.shape().cols(), x.shape().rows());
    from.iter().try_for_each(|&row| check("gather", row, m))?;
    match cx.device {
        Device::Cpu => {
            let mut y = cx.empty([from.len(), d])?;
            let x = x.f32()?;
            for (row, &from) in y.f32_mut()?.chunks_exact_mut(d).zip(from) {
                row.copy_from_slice(&x[from * d..(from + 1) * d]);
            }
            Ok(y)
        }
        Device::Gpu(_) => return Err(Error::CpuOnly { op: "rows" }),
    }
}

/// The rows of all `parts`, one after another.
///
/// # Errors
/// [`Error::Shapes`] when widths differ.
pub fn concat(cx: &Cx, parts: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = parts.first() else { return Ok(cx.empty([0, 0])?) };
    let d = first.shape().cols();
    if let Some(other) = parts.iter().find(|p| p.shape().cols() != d) {
        let (left, right) = (first.shape(), other.shape());
        return Err(Error::Shapes { op: "concat", left_name: "first", left, right_name: "other", right });
    }
    match cx.device {
        Device::Cpu => {
            let mut y = cx.empty([parts.iter().map(|p| p.shape().rows()).sum(), d])?;
            let mut rest = y.f32_mut()?;
            for part in parts {
                let (head, tail) = rest.split_at_mut(part.shape().elements());
                head.copy_from_slice(part.f32()?);
                rest = tail;
            }
            Ok(y)
        }
        Device::Gpu(_) => return Err(Error::CpuOnly { op: "rows" }),
    }
}
