//! Rows of a table, by number: `y[i] = table[ids[i]]`, `dtable[ids[i]] += dy[i]`.
//!
//! y [n, d] of table [v, d] in f32 or bf16. Saves nothing but the numbers, which the caller has. Reads and writes 4 bytes
//! an element of y, no FLOPs; backward adds, in the order of i.

use pheye_cpu::embedding as cpu;
use pheye_kernels::params::RowsAdd;
use pheye_tensor::{DType, Device, Gpu, Grads, Param, Slice, Tensor};

use crate::cpu::to_f32;
use crate::gpu::{by_dtype, typed};
use crate::rows::{Move, move_gpu};
use crate::{Cx, Error, Result};

/// y [n, d].
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
/// [`Error::Range`] for a number that the table does not have.
pub fn forward(cx: &Cx, ids: &[u32], table: &Param) -> Result<Tensor> {
    check(ids, table)?;
    let d = table.shape().cols();
    match &cx.device {
        Device::Cpu => {
            let mut y = cx.empty([ids.len(), d])?;
            match table.value.slice()? {
                Slice::F32(t) => cpu::forward(y.f32_mut()?, d, ids, t),
                Slice::Bf16(t) => cpu::forward_bf16(y.f32_mut()?, d, ids, t),
                Slice::Int8(..) => cpu::forward(y.f32_mut()?, d, ids, to_f32(cx, &table.value)?.f32()?),
            }
            Ok(y)
        }
        Device::Gpu(gpu) => {
            let x = table.matrix();
            let y = cx.empty_as([ids.len(), d], x.dtype())?;
            let from = Some(cx.table(ids)?);
            move_gpu(gpu, Move { x, y: &y, from, to: None, rows: ids.len(), whole: true })?;
            crate::elementwise::cast(cx, &y, cx.dtype())
        }
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
    match &cx.device {
        Device::Cpu => {
            if let Some(grads) = grads
                && let Some(dtable) = grads.of(table)?
                && d > 0
            {
                cpu::backward(dtable, d, ids, dy.f32()?);
            }
            Ok(())
        }
        Device::Gpu(gpu) => match grads.map(|g| g.view(table)).transpose()?.flatten() {
            Some(dtable) if d > 0 => backward_gpu(cx, gpu, ids, dy, &dtable),
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

/// Rows of dy that go to the same row of the table are added by one block, in the order of i.
fn backward_gpu(cx: &Cx, gpu: &Gpu, ids: &[u32], dy: &Tensor, dtable: &Tensor) -> Result<()> {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&i| ids[i as usize]);
    let (mut distinct, mut start) = (Vec::new(), Vec::new());
    for (at, &i) in order.iter().enumerate() {
        let id = ids[i as usize];
        if distinct.last() != Some(&id) {
            distinct.push(id);
            start.push(at as u32);
        }
    }
    start.push(order.len() as u32);
    let cols = dtable.shape().cols();
    let mut l = gpu.launch(by_dtype(dy.dtype(), "rows_add_bwd_bf16", "rows_add_bwd_f32")?)?;
    let p = RowsAdd {
        x: l.read(dy.region()?),
        y: l.update(typed(dtable, DType::F32)?),
        id: l.read(cx.table(&distinct)?),
        start: l.read(cx.table(&start)?),
        order: l.read(cx.table(&order)?),
        cols: cols as i32,
    };
    let grid = [distinct.len(), cols.div_ceil(l.spec().tile[0]), 1];
    Ok(l.run(grid, &p)?)
}
