//! Rows of a table, by number: `y[i] = table[ids[i]]`, `dtable[ids[i]] += dy[i]`.
//!
//! y [n, d] of table [v, d] in f32 or bf16. Saves nothing but the numbers, which the caller has. Reads and writes 4 bytes
//! an element of y, no FLOPs; backward adds, in the order of i.

use pheye_cpu::embedding as cpu;
use pheye_tensor::{Device, Grads, Param, Slice, Tensor};

use crate::{Cx, Error, Result};

/// y [n, d].
///
/// # Errors
/// [`Error::Range`] for a number that the table does not have.
pub fn forward(cx: &Cx, ids: &[u32], table: &Param) -> Result<Tensor> {
    check(ids, table)?;
    let d = table.shape().cols();
    match cx.device {
        Device::Cpu => {
            let mut y = cx.empty([ids.len(), d])?;
            match table.value.slice()? {
                Slice::F32(t) => cpu::forward(y.f32_mut()?, d, ids, t),
                Slice::Bf16(t) => cpu::forward_bf16(y.f32_mut()?, d, ids, t),
            }
            Ok(y)
        }
        Device::Gpu(_) => return Err(Error::CpuOnly { op: "embedding" }),
    }
}

/// Adds dy [n, d] to the gradient of the table, if trained.
///
/// # Errors
/// As [`forward`], and [`Error::Shapes`] when there is not one row of dy for each number.
pub fn backward(cx: &Cx, ids: &[u32], dy: &Tensor, table: &Param, grads: Option<&mut Grads>) -> Result<()> {
    let (left, d) = (dy.shape(), table.shape().cols());
    if left.rows() != ids.len() || left.cols() != d {
        let right = table.shape();
        return Err(Error::Shapes { op: "embedding", left_name: "dy", left, right_name: "table", right });
    }
    check(ids, table)?;
    match cx.device {
        Device::Cpu => {
            if let Some(grads) = grads
                && let Some(dtable) = grads.of(table)?
                && d > 0
            {
                cpu::backward(dtable, d, ids, dy.f32()?);
            }
            Ok(())
        }
        Device::Gpu(_) => return Err(Error::CpuOnly { op: "embedding" }),
    }
}

fn check(ids: &[u32], table: &Param) -> Result<()> {
    let v = table.shape().rows();
    match ids.iter().find(|&&id| id as usize >= v) {
        None => Ok(()),
        Some(id) => {
            let (value, allowed) = (id.to_string(), format!("0..{v}"));
            Err(Error::Range { op: "embedding", what: "id", value, allowed })
        }
    }
}
