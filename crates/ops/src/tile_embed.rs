//! The media sequence: the tokens of each picture, then those of its tiles, each plus its tile's row of a table.
//!
//! `media[b] = [global[b] + table[0], local[b·t] + table[1], …]`: media [b, (1 + t)·n, d], global [b, n, d], local [b·t, n, d],
//! table [at least 1 + t, d] in f32 or bf16. dglobal and dlocal are dmedia's rows, `dtable[j]` += Σ over pictures and tokens.
//! Saves nothing. One addition and 8 bytes an element, each way.

use pheye_cpu::gemm::add_column_sums;
use pheye_cpu::par;
use pheye_kernels::Out;
use pheye_kernels::params::{TileEmbedBwd, TileEmbedFwd};
use pheye_tensor::{DType, Device, Gpu, Grads, Param, Tensor};

use crate::cpu::to_f32;
use crate::gpu::{add_partial_rows, by_dtype, eights, read_optional, typed};
use crate::{Cx, Error, Result};

fn shapes(left_name: &'static str, left: &Tensor, right_name: &'static str, right: &Tensor) -> Error {
    Error::Shapes { op: "tile_embed", left_name, left: left.shape(), right_name, right: right.shape() }
}

/// media [b, (1 + t)·n, d].
///
/// ```
/// use pheye_ops::tensor::{DType, Param, Tensor};
/// use pheye_ops::{Cx, tile_embed};
///
/// // One image of one tile of 3 tokens, and its view as a whole; an embedding for each of the two.
/// let table = Param::frozen("weight", Tensor::from_f32([2, 1], &[0.5, 1.5])?);
/// let (global, local) = (Tensor::zeros([1, 3, 1], DType::F32), Tensor::zeros([1, 3, 1], DType::F32));
/// let media = tile_embed::forward(&Cx::cpu(), &global, Some(&local), &table)?;
/// assert_eq!(media.f32()?, [0.5, 0.5, 0.5, 1.5, 1.5, 1.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Shapes`] when the widths differ, local is not whole tiles of global's size, or the table is too short.
pub fn forward(cx: &Cx, global: &Tensor, local: Option<&Tensor>, table: &Param) -> Result<Tensor> {
    let shape = global.shape();
    let d = shape.cols();
    let (b, n) = match *shape.dims() {
        [b, n, _] => (b, n),
        _ => return Err(shapes("global", global, "table", &table.value)),
    };
    let t = match local {
        Some(local) => {
            let tiles = local.shape().rows() / n.max(1);
            if local.shape().cols() != d || tiles * n != local.shape().rows() || tiles % b.max(1) != 0 {
                return Err(shapes("local", local, "global", global));
            }
            tiles / b.max(1)
        }
        None => 0,
    };
    if table.shape().cols() != d || table.shape().rows() < 1 + t {
        return Err(shapes("table", &table.value, "global", global));
    }
    let mut media = cx.empty_as([b, (1 + t) * n, d], global.dtype())?;
    match &cx.device {
        Device::Cpu => {
            let table = to_f32(cx, &table.value)?;
            let (global, table) = (global.f32()?, table.f32()?);
            let local = local.map_or(Ok(&[][..]), Tensor::f32)?;
            let out = media.f32_mut()?;
            let len = out.len();
            par::rows(out, d, n, len, |first, out| {
                let (i, j) = (first / n / (1 + t), first / n % (1 + t));
                let from = if j == 0 { &global[i * n * d..] } else { &local[(i * t + j - 1) * n * d..] };
                for (out, x) in out.chunks_exact_mut(d).zip(from.chunks_exact(d)) {
                    out.iter_mut().zip(x).zip(&table[j * d..]).for_each(|((o, x), e)| *o = x + e);
                }
            });
        }
        Device::Gpu(gpu) => {
            let table = if global.dtype() == DType::F32 { &table.value } else { table.matrix() };
            forward_gpu(gpu, global, local, table, &media)?;
        }
    }
    Ok(media)
}

/// dglobal [b, n, d] and, when t > 0, dlocal [b·t, n, d] of dmedia for `b` pictures of `t` tiles each.
///
/// # Errors
/// [`Error::Shapes`] when dmedia is not that many tiles of the table's width.
pub fn backward(
    cx: &Cx,
    dmedia: &Tensor,
    b: usize,
    t: usize,
    table: &Param,
    grads: Option<&mut Grads>,
) -> Result<(Tensor, Option<Tensor>)> {
    let (rows, d) = (dmedia.shape().rows(), dmedia.shape().cols());
    let n = rows / (b * (1 + t)).max(1);
    if n * b * (1 + t) != rows || table.shape().cols() != d || table.shape().rows() < 1 + t {
        return Err(shapes("dmedia", dmedia, "table", &table.value));
    }
    let mut global = cx.empty_as([b, n, d], dmedia.dtype())?;
    let mut local = (t > 0).then(|| cx.empty_as([b * t, n, d], dmedia.dtype())).transpose()?;
    match &cx.device {
        Device::Cpu => {
            let (from, tile) = (dmedia.f32()?, n * d);
            par::rows(global.f32_mut()?, d, n, b * tile, |first, out| {
                out.copy_from_slice(&from[first / n.max(1) * (1 + t) * tile..][..tile]);
            });
            if let Some(local) = &mut local {
                par::rows(local.f32_mut()?, d, n, b * t * tile, |first, out| {
                    let (i, j) = (first / n / t, first / n % t);
                    out.copy_from_slice(&from[(i * (1 + t) + 1 + j) * tile..][..tile]);
                });
            }
            if let Some(dtable) = grads.map(|g| g.of(table)).transpose()?.flatten() {
                for (tile, from) in from.chunks_exact(tile.max(1)).enumerate() {
                    add_column_sums(&mut dtable[tile % (1 + t) * d..][..d], from);
                }
            }
        }
        Device::Gpu(gpu) => {
            let dtable = grads.map(|g| g.view(table)).transpose()?.flatten();
            backward_gpu(cx, gpu, dmedia, [&global, local.as_ref().unwrap_or(&global)], t, dtable.as_ref())?;
        }
    }
    Ok((global, local))
}

fn forward_gpu(
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
        pictures: b as i32,
        tiles: tiles as i32,
        tokens: n as i32,
        cols: d as i32,
    };
    let grid = [eights(rows, d).div_ceil(l.spec().tile[0]), 1, 1];
    Ok(l.run(grid, &p)?)
}

/// Writes both of `out`, dglobal and dlocal (dglobal again where there are no tiles); adds to dtable, if there is one.
fn backward_gpu(
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
        pictures: b as i32,
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
