//! The media sequence: the tokens of each image, then those of its tiles, each with a learned tile embedding added.
//!
//! `media[b] = [global[b] + table[0], local[b·t] + table[1], …]`: media [b, (1 + t)·n, d], global [b, n, d], local
//! [b·t, n, d], table [at least 1 + t, d] in f32 or bf16. dglobal and dlocal are rows of dmedia, and `dtable[j]` is a
//! sum over images and tokens. Saves nothing. One addition and 8 bytes per element, each way.

use pheye_tensor::{DType, Device, Grads, Param, Tensor};

use crate::{Cx, Error, Result};

mod cpu;
mod gpu;

fn shapes(left_name: &'static str, left: &Tensor, right_name: &'static str, right: &Tensor) -> Error {
    Error::Shapes { op: "tile_embed", left_name, left: left.shape(), right_name, right: right.shape() }
}

/// media [b, (1 + t)·n, d] from global [b, n, d] and local [b·t, n, d].
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
/// [`Error::Shapes`] when the widths differ, local does not consist of tiles with the size of global, or the table is
/// too short.
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
        Device::Cpu => cpu::forward(cx, global, local, table, &mut media)?,
        Device::Gpu(gpu) => {
            let table = if global.dtype() == DType::F32 { &table.value } else { table.matrix() };
            gpu::forward(gpu, global, local, table, &media)?;
        }
    }
    Ok(media)
}

/// dglobal [b, n, d] and, if t > 0, dlocal [b·t, n, d] from dmedia, for `b` images with `t` tiles each.
///
/// # Errors
/// [`Error::Shapes`] when dmedia does not have the size for `b` images with `t` tiles, or the table does not fit it.
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
            let dtable = grads.map(|g| g.of(table)).transpose()?.flatten();
            cpu::backward(dmedia, &mut global, local.as_mut(), t, dtable)?;
        }
        Device::Gpu(gpu) => {
            let dtable = grads.map(|g| g.view(table)).transpose()?.flatten();
            gpu::backward(cx, gpu, dmedia, [&global, local.as_ref().unwrap_or(&global)], t, dtable.as_ref())?;
        }
    }
    Ok((global, local))
}
