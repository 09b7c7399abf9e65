//! Moving rows on a GPU: one kernel, which takes the row numbers from tables.

use pheye_kernels::In;
use pheye_kernels::params::RowsMove;
use pheye_tensor::{DType, Gpu, Region, Tensor};

use super::last_of_each;
use crate::gpu::{by_dtype, typed, vectors_of_8};
use crate::{Cx, Result};

/// `into[at[i]] = x[i]`.
pub(super) fn scatter(cx: &Cx, gpu: &Gpu, into: &Tensor, x: &Tensor, at: &[usize]) -> Result<()> {
    let (from, to) = last_of_each(at);
    let (rows, from) = (to.len(), from.map(|f| cx.table(&f)).transpose()?);
    let to = Some(cx.table(&to)?);
    move_rows(gpu, Move { x, y: into, from, to, rows, whole: false })
}

/// `y[i] = x[from[i]]`.
pub(super) fn gather(cx: &Cx, gpu: &Gpu, x: &Tensor, from: &[usize]) -> Result<Tensor> {
    let y = cx.empty_as([from.len(), x.shape().cols()], x.dtype())?;
    let rows: Vec<u32> = from.iter().map(|&row| row as u32).collect();
    let from = Some(cx.table(&rows)?);
    move_rows(gpu, Move { x, y: &y, from, to: None, rows: rows.len(), whole: true })?;
    Ok(y)
}

/// Concatenates `parts` to a matrix of shape `shape`.
pub(super) fn concat(
    cx: &Cx,
    gpu: &Gpu,
    parts: &[&Tensor],
    shape: [usize; 2],
    dtype: DType,
) -> Result<Tensor> {
    let (y, mut start) = (cx.empty_as(shape, dtype)?, 0);
    for part in parts {
        let len = part.shape().elements();
        gpu.copy(typed(part, dtype)?, y.view(start, [len])?.region()?)?;
        start += len;
    }
    Ok(y)
}

/// `y[to[i]] = x[from[i]]`, where a missing table stands for i itself.
pub(crate) struct Move<'a> {
    pub x: &'a Tensor,
    pub y: &'a Tensor,
    pub from: Option<Region>,
    pub to: Option<Region>,
    /// Number of rows to move.
    pub rows: usize,
    /// Whether they cover all rows of y.
    pub whole: bool,
}

/// Launches the copies.
pub(crate) fn move_rows(gpu: &Gpu, m: Move) -> Result<()> {
    let (dtype, cols) = (m.x.dtype(), m.x.shape().cols());
    let mut l = gpu.launch(by_dtype(dtype, "rows_move_bf16", "rows_move_f32")?)?;
    let y = typed(m.y, dtype)?;
    let p = RowsMove {
        x: l.read(m.x.region()?),
        y: if m.whole { l.write(y) } else { l.update(y) },
        from: m.from.map_or(In::NULL, |table| l.read(table)),
        to: m.to.map_or(In::NULL, |table| l.read(table)),
        rows: m.rows as i32,
        cols: cols as i32,
    };
    let grid = [vectors_of_8(m.rows, cols).div_ceil(l.spec().tile[0]), 1, 1];
    Ok(l.run(grid, &p)?)
}
