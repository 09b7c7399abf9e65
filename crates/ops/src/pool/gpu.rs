//! Mean pooling on a GPU.

use pheye_kernels::params::{PoolBwd, PoolFwd};
use pheye_tensor::{Gpu, Tensor};

use crate::gpu::{by_dtype, vectors_of_8};
use crate::{Cx, Result};

/// The offsets of the groups: the first row of each group, then the number of rows.
fn starts(lengths: &[usize]) -> Vec<u32> {
    let ends = lengths.iter().scan(0, |end, n| {
        *end += n;
        Some(*end as u32)
    });
    std::iter::once(0).chain(ends).collect()
}

/// y [groups, d].
pub(super) fn forward(cx: &Cx, gpu: &Gpu, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let (dtype, cols) = (x.dtype(), x.shape().cols());
    let y = cx.empty_as([lengths.len(), cols], dtype)?;
    let mut l = gpu.launch(by_dtype(dtype, "pool_fwd_bf16", "pool_fwd_f32")?)?;
    let p = PoolFwd {
        x: l.read(x.region()?),
        y: l.write(y.region()?),
        start: l.read(cx.table(&starts(lengths))?),
        cols: cols as i32,
    };
    let grid = [lengths.len(), cols.div_ceil(l.spec().tile[0]), 1];
    l.run(grid, &p)?;
    Ok(y)
}

/// dx [rows, d].
pub(super) fn backward(cx: &Cx, gpu: &Gpu, dy: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let (dtype, cols) = (dy.dtype(), dy.shape().cols());
    let group: Vec<u32> =
        lengths.iter().enumerate().flat_map(|(g, &n)| std::iter::repeat_n(g as u32, n)).collect();
    let dx = cx.empty_as([group.len(), cols], dtype)?;
    let mut l = gpu.launch(by_dtype(dtype, "pool_bwd_bf16", "pool_bwd_f32")?)?;
    let p = PoolBwd {
        dy: l.read(dy.region()?),
        dx: l.write(dx.region()?),
        group: l.read(cx.table(&group)?),
        start: l.read(cx.table(&starts(lengths))?),
        rows: group.len() as i32,
        cols: cols as i32,
    };
    let grid = [vectors_of_8(group.len(), cols).div_ceil(l.spec().tile[0]), 1, 1];
    l.run(grid, &p)?;
    Ok(dx)
}
