//! Mean of groups of consecutive rows: one vector for a picture's tokens, or for a caption's.
//!
//! `y[g] = Σ x[rows of g] / n(g)`. Saves nothing: `dx[row of g] = dy[g] / n(g)`. Reads and writes 4 bytes an element of x.

use pheye_kernels::params::{PoolBwd, PoolFwd};
use pheye_tensor::{Device, Gpu, Tensor};

use crate::gpu::{by_dtype, eights};
use crate::{Cx, Error, Result};

/// y [groups, d] of x [rows, d]; group g has `lengths[g]` rows, at least one.
///
/// ```
/// use pheye_ops::{Cx, pool, tensor::Tensor};
///
/// // The means of the first two rows and of the last one.
/// let x = Tensor::from_f32([3, 1], &[1.0, 3.0, 7.0])?;
/// assert_eq!(pool::forward(&Cx::cpu(), &x, &[2, 1])?.f32()?, [2.0, 7.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Range`] when the lengths do not add up to the rows of x or one is 0.
pub fn forward(cx: &Cx, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    check(lengths, x.shape().rows())?;
    let d = x.shape().cols();
    match &cx.device {
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
        Device::Gpu(gpu) => forward_gpu(cx, gpu, x, lengths),
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
    match &cx.device {
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
        Device::Gpu(gpu) => backward_gpu(cx, gpu, dy, lengths),
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

/// The first row of each group, then the number of rows.
fn starts(lengths: &[usize]) -> Vec<u32> {
    let ends = lengths.iter().scan(0, |end, n| {
        *end += n;
        Some(*end as u32)
    });
    std::iter::once(0).chain(ends).collect()
}

fn forward_gpu(cx: &Cx, gpu: &Gpu, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
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

fn backward_gpu(cx: &Cx, gpu: &Gpu, dy: &Tensor, lengths: &[usize]) -> Result<Tensor> {
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
    let grid = [eights(group.len(), cols).div_ceil(l.spec().tile[0]), 1, 1];
    l.run(grid, &p)?;
    Ok(dx)
}
