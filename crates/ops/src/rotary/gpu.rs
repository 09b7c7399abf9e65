//! Rotary position embedding on a GPU: one launch for one tensor, or for q, k and v together with the update of the
//! cache.

use pheye_kernels::params::{RotaryCache, RotaryFwd};
use pheye_tensor::{Gpu, Launch, Tensor};

use super::Rotary;
use crate::gpu::{by_dtype, in_place};
use crate::{Cx, Result};

/// Rotates by the angles times `sign`, in place if no other tensor shares the memory of x.
pub(super) fn rotate(
    cx: &Cx,
    gpu: &Gpu,
    x: Tensor,
    positions: &[u32],
    p: &Rotary,
    sign: f32,
) -> Result<Tensor> {
    if p.rot == 0 || positions.is_empty() {
        return Ok(x);
    }
    let dtype = x.dtype();
    let mut l = gpu.launch(by_dtype(dtype, "rotary_fwd_bf16", "rotary_fwd_f32")?)?;
    let angles = cx.upload(&p.tables)?;
    let (position, tables) = (l.read(cx.table(positions)?), l.read(angles.region()?));
    let (from, to, y) = in_place(cx, &mut l, x)?;
    let params =
        RotaryFwd { x: from, y: to, position, tables, rot: p.rot as i32, sign, ..sizes(p, positions.len()) };
    let grid = [blocks(p, positions.len(), &l), 1, 1];
    l.run(grid, &params)?;
    Ok(y)
}

fn sizes(p: &Rotary, rows: usize) -> RotaryFwd {
    let (heads, head_dim) = (p.heads as i32, p.head_dim as i32);
    RotaryFwd { rows: rows as i32, heads, head_dim, ..RotaryFwd::default() }
}

/// The number of blocks, with one thread for eight elements. If there are more units of work, threads loop.
fn blocks(p: &Rotary, rows: usize, l: &Launch) -> usize {
    (rows * p.heads * p.head_dim).div_ceil(8).div_ceil(l.spec().tile[0]).max(1)
}

/// Rotates q in place, and writes the rotated k and v to the rows `to` of the cache.
pub(super) fn rotate_into_cache(
    cx: &Cx,
    gpu: &Gpu,
    q: Tensor,
    kept: [(&Tensor, &mut Tensor); 2],
    (positions, to): (&[u32], &[u32]),
    p: &Rotary,
) -> Result<Tensor> {
    let mut l = gpu.launch("rotary_cache_bf16")?;
    let angles = cx.upload(&p.tables)?;
    let (position, tables) = (l.read(cx.table(positions)?), l.read(angles.region()?));
    let rotated = RotaryFwd { position, tables, rot: p.rot as i32, sign: 1.0, ..sizes(p, positions.len()) };
    let place = l.update(q.region()?);
    let mut of = [RotaryFwd { x: place.input(), y: place, ..rotated }; 3];
    let to = l.read(cx.table(to)?);
    for (i, (from, into)) in kept.into_iter().enumerate() {
        // The values are not rotated.
        let rot = if i == 0 { rotated.rot } else { 0 };
        of[i + 1] = RotaryFwd { x: l.read(from.region()?), y: l.update(into.region()?), to, rot, ..rotated };
    }
    let grid = [blocks(p, positions.len(), &l), 3, 1];
    l.run(grid, &RotaryCache { of })?;
    Ok(q)
}
