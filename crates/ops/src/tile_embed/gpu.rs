//! The media sequence on a GPU.

use pheye_kernels::Out;
use pheye_kernels::params::{TileEmbedBwd, TileEmbedFwd};
use pheye_tensor::{Gpu, Tensor};

use crate::gpu::{add_partial_rows, by_dtype, read_optional, typed, vectors_of_8};
use crate::{Cx, Error, Result};

/// Writes media [b, (1 + t)·n, d].
pub(super) fn forward(
    gpu: &Gpu,
    global: &Tensor,
    local: Option<&Tensor>,
    table: &Tensor,
    media: &Tensor,
) -> Result<()> {
    let dtype = global.dtype();
    let (b, n, d) = (global.shape().dims()[0], global.shape().dims()[1], global.shape().cols());
    let (rows, tiles) = (media.shape().rows(), local.map_or(0, |l| l.shape().rows() / (b * n).max(1)));
    let mut l = gpu.launch(by_dtype(dtype, "tile_embed_fwd_bf16", "tile_embed_fwd_f32")?)?;
    let p = TileEmbedFwd {
        global: l.read(global.region()?),
        local: read_optional(&mut l, local, dtype)?,
        table: l.read(typed(table, dtype)?),
        media: l.write(typed(media, dtype)?),
        images: b as i32,
        tiles: tiles as i32,
        tokens: n as i32,
        cols: d as i32,
    };
    let grid = [vectors_of_8(rows, d).div_ceil(l.spec().tile[0]), 1, 1];
    Ok(l.run(grid, &p)?)
}

/// Writes both tensors of `out`, dglobal and dlocal (dglobal again if there are no tiles); adds to dtable if it is
/// given.
pub(super) fn backward(
    cx: &Cx,
    gpu: &Gpu,
    dmedia: &Tensor,
    out: [&Tensor; 2],
    tiles: usize,
    dtable: Option<&Tensor>,
) -> Result<()> {
    let (dtype, views) = (dmedia.dtype(), 1 + tiles);
    let (b, n, d) = (out[0].shape().dims()[0], out[0].shape().dims()[1], out[0].shape().cols());
    let mut l = gpu.launch(by_dtype(dtype, "tile_embed_bwd_bf16", "tile_embed_bwd_f32")?)?;
    let [columns, rows, _] = l.spec().tile;
    let pieces = n.div_ceil(rows);
    let partial = dtable.map(|_| cx.empty_f32([b * pieces, views * d])).transpose()?;
    let [dglobal, dlocal] = out;
    let p = TileEmbedBwd {
        dmedia: l.read(dmedia.region()?),
        dglobal: l.write(typed(dglobal, dtype)?),
        dlocal: if tiles > 0 { l.write(typed(dlocal, dtype)?) } else { Out::NULL },
        partial: partial.as_ref().map_or(Ok(Out::NULL), |t| Ok::<_, Error>(l.write(t.region()?)))?,
        images: b as i32,
        tiles: tiles as i32,
        tokens: n as i32,
        cols: d as i32,
    };
    l.run([b * views, pieces, d.div_ceil(columns)], &p)?;
    match (dtable, partial) {
        (Some(dtable), Some(partial)) => add_partial_rows(gpu, &dtable.view(0, [views * d])?, &partial, 0),
        _ => Ok(()),
    }
}
