//! Embedding lookup: `y[i] = table[ids[i]]`, `dtable[ids[i]] += dy[i]`.
//!
//! y [n, d], table [v, d] in f32 or bf16. Saves nothing; backward takes the ids again and accumulates in the order of
//! i. Reads and writes 4 bytes per element of y.

use pheye_tensor::{Device, Grads, Param, Tensor};

use crate::{Cx, Error, Result};

mod cpu;
mod gpu;

/// y [n, d] for n ids.
///
/// ```
/// use pheye_ops::tensor::{Param, Tensor};
/// use pheye_ops::{Cx, embedding};
///
/// let table = Param::frozen("weight", Tensor::from_f32([3, 2], &[0.0, 0.1, 1.0, 1.1, 2.0, 2.1])?);
/// assert_eq!(embedding::forward(&Cx::cpu(), &[2, 0], &table)?.f32()?, [2.0, 2.1, 0.0, 0.1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Range`] when an id is not in 0..v.
pub fn forward(cx: &Cx, ids: &[u32], table: &Param) -> Result<Tensor> {
    check(ids, table)?;
    match &cx.device {
        Device::Cpu => cpu::forward(cx, ids, table),
        Device::Gpu(gpu) => gpu::forward(cx, gpu, ids, table),
    }
}

/// Adds dy [n, d] to the gradient of the table if it is trained.
///
/// # Errors
/// [`Error::Range`] when an id is not in 0..v, and [`Error::Shapes`] when dy is not [n, d].
pub fn backward(cx: &Cx, ids: &[u32], dy: &Tensor, table: &Param, grads: Option<&mut Grads>) -> Result<()> {
    let (left, d) = (dy.shape(), table.shape().cols());
    if left.rows() != ids.len() || left.cols() != d {
        let right = table.shape();
        return Err(Error::Shapes { op: "embedding", left_name: "dy", left, right_name: "table", right });
    }
    check(ids, table)?;
    match &cx.device {
        Device::Cpu => match grads.map(|g| g.of(table)).transpose()?.flatten() {
            Some(dtable) if d > 0 => cpu::backward(ids, dy, dtable),
            _ => Ok(()),
        },
        Device::Gpu(gpu) => match grads.map(|g| g.view(table)).transpose()?.flatten() {
            Some(dtable) if d > 0 => gpu::backward(cx, gpu, ids, dy, &dtable),
            _ => Ok(()),
        },
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
