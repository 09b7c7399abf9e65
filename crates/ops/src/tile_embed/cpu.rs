//! The media sequence on the CPU.

use pheye_cpu::gemm::add_column_sums;
use pheye_cpu::par;
use pheye_tensor::{Param, Tensor};

use crate::cpu::to_f32;
use crate::{Cx, Result};

/// Writes media [b, (1 + t)·n, d] from global [b, n, d] and local [b·t, n, d].
pub(super) fn forward(
    cx: &Cx,
    global: &Tensor,
    local: Option<&Tensor>,
    table: &Param,
    media: &mut Tensor,
) -> Result<()> {
    let (b, n, d) = (global.shape().dims()[0], global.shape().dims()[1], global.shape().cols());
    let t = local.map_or(0, |l| l.shape().rows() / (b * n).max(1));
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
    Ok(())
}

/// Writes dglobal [b, n, d] and, for t tiles, dlocal [b·t, n, d]; adds to dtable if it is given.
pub(super) fn backward(
    dmedia: &Tensor,
    global: &mut Tensor,
    local: Option<&mut Tensor>,
    t: usize,
    dtable: Option<&mut [f32]>,
) -> Result<()> {
    let (b, n, d) = (global.shape().dims()[0], global.shape().dims()[1], global.shape().cols());
    let (from, tile) = (dmedia.f32()?, n * d);
    par::rows(global.f32_mut()?, d, n, b * tile, |first, out| {
        out.copy_from_slice(&from[first / n.max(1) * (1 + t) * tile..][..tile]);
    });
    if let Some(local) = local {
        par::rows(local.f32_mut()?, d, n, b * t * tile, |first, out| {
            let (i, j) = (first / n / t, first / n % t);
            out.copy_from_slice(&from[(i * (1 + t) + 1 + j) * tile..][..tile]);
        });
    }
    if let Some(dtable) = dtable {
        for (tile, from) in from.chunks_exact(tile.max(1)).enumerate() {
            add_column_sums(&mut dtable[tile % (1 + t) * d..][..d], from);
        }
    }
    Ok(())
}
