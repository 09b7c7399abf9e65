//! Rows moved between matrices: into a cache, out of a batch, one matrix after another.
//!
//! Pure copies, reading and writing 4 bytes an element. None has a backward: each is used where no gradient flows, or
//! on gradients themselves.

use std::collections::HashSet;

use pheye_kernels::In;
use pheye_kernels::params::RowsMove;
use pheye_tensor::{Device, Gpu, Region, Tensor};

use crate::gpu::{by_dtype, eights, typed};
use crate::{Cx, Error, Result};

fn check(op: &'static str, row: usize, rows: usize) -> Result<()> {
    if row < rows {
        return Ok(());
    }
    Err(Error::Range { op, what: "row", value: row.to_string(), allowed: format!("0..{rows}") })
}

/// Whether every row of x has a place in `into`.
pub(crate) fn check_scatter(into: &Tensor, x: &Tensor, at: &[usize]) -> Result<()> {
    let (left, right) = (x.shape(), into.shape());
    if left.cols() != right.cols() || left.rows() != at.len() {
        return Err(Error::Shapes { op: "scatter", left_name: "x", left, right_name: "into", right });
    }
    at.iter().try_for_each(|&row| check("scatter", row, right.rows()))
}

/// `into[at[i]] = x[i]` for the rows of x `[n, d]` and into `[m, d]`.
///
/// # Errors
/// [`Error::Shapes`] when widths or the number of rows differ, [`Error::Range`] for a row that `into` does not have.
pub fn scatter(cx: &Cx, into: &mut Tensor, x: &Tensor, at: &[usize]) -> Result<()> {
    check_scatter(into, x, at)?;
    let d = x.shape().cols();
    match &cx.device {
        Device::Cpu => {
            let into = into.f32_mut()?;
            for (row, &to) in x.f32()?.chunks_exact(d).zip(at) {
                into[to * d..(to + 1) * d].copy_from_slice(row);
            }
            Ok(())
        }
        Device::Gpu(gpu) => {
            let (from, to) = last_of_each(at);
            let (rows, from) = (to.len(), from.map(|f| cx.table(&f)).transpose()?);
            let to = Some(cx.table(&to)?);
            move_gpu(gpu, Move { x, y: into, from, to, rows, whole: false })
        }
    }
}

/// `y[i] = x[from[i]]`: y `[n, d]` of x `[m, d]`.
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
/// [`Error::Range`] for a row that x does not have.
pub fn gather(cx: &Cx, x: &Tensor, from: &[usize]) -> Result<Tensor> {
    let (d, m) = (x.shape().cols(), x.shape().rows());
    from.iter().try_for_each(|&row| check("gather", row, m))?;
    match &cx.device {
        Device::Cpu => {
            let mut y = cx.empty([from.len(), d])?;
            let x = x.f32()?;
            for (row, &from) in y.f32_mut()?.chunks_exact_mut(d).zip(from) {
                row.copy_from_slice(&x[from * d..(from + 1) * d]);
            }
            Ok(y)
        }
        Device::Gpu(gpu) => {
            let y = cx.empty_as([from.len(), d], x.dtype())?;
            let rows: Vec<u32> = from.iter().map(|&row| row as u32).collect();
            let from = Some(cx.table(&rows)?);
            move_gpu(gpu, Move { x, y: &y, from, to: None, rows: rows.len(), whole: true })?;
            Ok(y)
        }
    }
}

/// The rows of all `parts`, one after another.
///
/// # Errors
/// [`Error::Shapes`] when widths differ.
pub fn concat(cx: &Cx, parts: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = parts.first() else { return cx.empty([0, 0]) };
    let d = first.shape().cols();
    if let Some(other) = parts.iter().find(|p| p.shape().cols() != d) {
        let (left, right) = (first.shape(), other.shape());
        return Err(Error::Shapes { op: "concat", left_name: "first", left, right_name: "other", right });
    }
    match &cx.device {
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
        Device::Gpu(gpu) => {
            let rows = parts.iter().map(|p| p.shape().rows()).sum();
            let (y, mut start) = (cx.empty_as([rows, d], first.dtype())?, 0);
            for part in parts {
                let len = part.shape().elements();
                gpu.copy(typed(part, first.dtype())?, y.view(start, [len])?.region()?)?;
                start += len;
            }
            Ok(y)
        }
    }
}

/// The rows of x to move and where to. Of several for one place the last counts, as when they are moved in turn.
pub(crate) fn last_of_each(at: &[usize]) -> (Option<Vec<u32>>, Vec<u32>) {
    let mut seen = HashSet::with_capacity(at.len());
    let keep: Vec<usize> = (0..at.len()).rev().filter(|&i| seen.insert(at[i])).collect();
    if keep.len() == at.len() {
        return (None, at.iter().map(|&row| row as u32).collect());
    }
    (Some(keep.iter().map(|&i| i as u32).collect()), keep.iter().map(|&i| at[i] as u32).collect())
}

/// `y[to[i]] = x[from[i]]`, where an absent table is i itself.
pub(crate) struct Move<'a> {
    pub x: &'a Tensor,
    pub y: &'a Tensor,
    pub from: Option<Region>,
    pub to: Option<Region>,
    /// Rows moved.
    pub rows: usize,
    /// Whether they are all rows of y.
    pub whole: bool,
}

pub(crate) fn move_gpu(gpu: &Gpu, m: Move) -> Result<()> {
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
    let grid = [eights(m.rows, cols).div_ceil(l.spec().tile[0]), 1, 1];
    Ok(l.run(grid, &p)?)
}
