//! Mean of groups of consecutive rows: one vector for a picture's tokens, or for a caption's.
//!
//! `y[g] = Σ x[rows of g] / n(g)`. Saves nothing: `dx[row of g] = dy[g] / n(g)`. Reads and writes 4 bytes an element of x.

use pheye_tensor::{Device, Tensor};

use crate::{Cx, Error, Result};

/// y [groups, d] of x [rows, d]; group g has `lengths[g]` rows, at least one.
///
/// # Errors
/// [`Error::Range`] when the lengths do not add up to the rows of x or one is 0.
pub fn forward(cx: &Cx, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    check(lengths, x.shape().rows())?;
    let d = x.shape().cols();
    match cx.device {
        Device::Cpu => {
            let mut y = cx.zeros([lengths.len(), d])?;
            let mut rows = x.f32()?.chunks_exact(d);
            for (out, &n) in y.f32_mut()?.chunks_exact_mut(d).zip(lengths) {
                for row in rows.by_ref().take(n) {
                    out.iter_mut().zip(row).for_each(|(o, v)| *o += v);
                }
                out.iter_mut().for_each(|o| *o /= n as f32);
            }
            Ok(y)
        }
        Device::Gpu(_) => return Err(Error::CpuOnly { op: "pool" }),
    }
}

/// dx [rows, d] of dy [groups, d].
///
/// # Errors
/// [`Error::Range`] when there is not one length for each row of dy.
pub fn backward(cx: &Cx, dy: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    if dy.shape().rows() != lengths.len() {
        return Err(fault(format!("{} groups", lengths.len()), dy.shape().rows()));
    }
    let d = dy.shape().cols();
    match cx.device {
        Device::Cpu => {
            let mut dx = cx.empty([lengths.iter().sum(), d])?;
            let mut rows = dx.f32_mut()?.chunks_exact_mut(d);
            for (dy, &n) in dy.f32()?.chunks_exact(d).zip(lengths) {
                for row in rows.by_ref().take(n) {
                    row.iter_mut().zip(dy).for_each(|(o, v)| *o = v / n as f32);
                }
            }
            Ok(dx)
        }
        Device::Gpu(_) => return Err(Error::CpuOnly { op: "pool" }),
    }
}

fn check(lengths: &[usize], rows: usize) -> Result<()> {
    let sum: usize = lengths.iter().sum();
    match sum == rows && !lengths.contains(&0) {
        true => Ok(()),
        false => Err(fault(format!("{lengths:?}"), rows)),
    }
}

fn fault(value: String, rows: usize) -> Error {
    Error::Range {
        op: "pool",
        what: "lengths",
        value,
        allowed: format!("positive lengths that make {rows} rows"),
    }
}
