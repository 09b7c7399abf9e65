//! Embedding lookup on a GPU.

use pheye_kernels::params::RowsAdd;
use pheye_tensor::{DType, Gpu, Param, Tensor};

use crate::elementwise::cast;
use crate::gpu::{by_dtype, typed};
use crate::rows::gpu::{Move, move_rows};
use crate::{Cx, Result};

/// y [n, d].
pub(super) fn forward(cx: &Cx, gpu: &Gpu, ids: &[u32], table: &Param) -> Result<Tensor> {
    let x = table.matrix();
    let y = cx.empty_as([ids.len(), table.shape().cols()], x.dtype())?;
    let from = Some(cx.table(ids)?);
    move_rows(gpu, Move { x, y: &y, from, to: None, rows: ids.len(), whole: true })?;
    cast(cx, &y, cx.dtype())
}

/// Adds dy to dtable. One block adds all rows of dy that belong to the same row of the table, in the order of i.
pub(super) fn backward(cx: &Cx, gpu: &Gpu, ids: &[u32], dy: &Tensor, dtable: &Tensor) -> Result<()> {
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
