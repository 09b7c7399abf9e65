//! Patch embedding on a GPU. The rows of patches and weights are padded to a multiple of 8, so that the GEMM can use
//! 16-byte copies.

use pheye_kernels::Out;
use pheye_kernels::params::{PadRows, PatchRows, PatchTokens, PatchTokensBwd};
use pheye_tensor::{DType, Gpu, Grads, Param, Tensor};

use super::PatchEmbed;
use crate::gpu::by_dtype;
use crate::gpu::gemm::{GemmEpilogue, MatOperand};
use crate::gpu::typed;
use crate::lora::gpu::Operands;
use crate::lora::{self, Route};
use crate::{Cx, Result};

/// tokens [t, 1 + g·g, d] for pixels [t, c, s, s] in f32 or bf16; the route is over patches.
pub(super) fn forward(
    cx: &Cx,
    gpu: &Gpu,
    pixels: &Tensor,
    p: &PatchEmbed,
    route: &Route,
    tokens: &Tensor,
) -> Result<lora::Saved> {
    let [t, channels, size] = [0, 1, 2].map(|i| pixels.shape().dims().get(i).copied().unwrap_or(1));
    let (d, k, g) = (p.conv.base.n(), p.conv.base.k(), size / p.patch);
    let (count, ld) = (t * g * g, k.next_multiple_of(8));

    let patches = cx.empty([count, ld])?;
    let name = by_dtype(pixels.dtype(), "patch_rows_bf16", "patch_rows_f32")?;
    let mut launch = gpu.launch(name)?;
    let per_block = launch.spec().tile[0];
    let params = PatchRows {
        pixels: launch.read(pixels.region()?),
        rows: launch.write(patches.region()?),
        tiles: t as i32,
        channels: channels as i32,
        g: g as i32,
        side: p.patch as i32,
        ld: ld as i32,
    };
    launch.run([(count * ld).div_ceil(per_block), 1, 1], &params)?;

    let weight = p.conv.base.weight.matrix();
    let padded = if k == ld { weight.reshape([d, k])? } else { pad(cx, gpu, weight, [d, k, ld])? };
    let rows = cx.empty([count, d])?;
    let from = Operands { x: &patches, w: MatOperand::of(&padded)? };
    let saved = lora::gpu::forward(cx, gpu, &from, &p.conv, route, (&rows, GemmEpilogue::default()))?;

    let mut launch = gpu.launch("patch_tokens_fwd_bf16")?;
    let per_block = launch.spec().tile[0];
    let params = PatchTokens {
        rows: launch.read(rows.region()?),
        first: launch.read(typed(&p.class.value, DType::F32)?),
        position: launch.read(typed(p.position.matrix(), DType::Bf16)?),
        tokens: launch.write(tokens.region()?),
        tiles: t as i32,
        patches: (g * g) as i32,
        d: d as i32,
    };
    // A block handles the same elements in all tiles.
    let blocks = if t == 0 { 0 } else { ((1 + g * g) * d).div_ceil(per_block) };
    launch.run([blocks, 1, 1], &params)?;
    Ok(saved)
}

/// A copy of `from` [rows, cols] whose rows are padded with zeros to `ld` elements.
fn pad(cx: &Cx, gpu: &Gpu, from: &Tensor, [rows, cols, ld]: [usize; 3]) -> Result<Tensor> {
    let to = cx.empty([rows, ld])?;
    let mut launch = gpu.launch("pad_rows_bf16")?;
    let per_block = launch.spec().tile[0];
    let params = PadRows {
        from: launch.read(typed(from, DType::Bf16)?),
        to: launch.write(to.region()?),
        rows: rows as i32,
        cols: cols as i32,
        ld: ld as i32,
    };
    launch.run([(rows * ld).div_ceil(per_block), 1, 1], &params)?;
    Ok(to)
}

/// Adds the gradients of trained parameters, given the gradient of the tokens.
pub(super) fn backward(
    cx: &Cx,
    gpu: &Gpu,
    saved: &lora::Saved,
    dtokens: &Tensor,
    p: &PatchEmbed,
    route: &Route,
    grads: &mut Grads,
) -> Result<()> {
    let d = p.conv.base.n();
    let n = p.position.shape().elements() / d.max(1);
    let t = dtokens.shape().rows() / n.max(1);
    let trained = p.conv.params().any(Param::is_trained);
    let rows = if trained { Some(cx.empty([t * (n - 1), d])?) } else { None };
    let (dclass, dposition) = (grads.view(&p.class)?, grads.view(&p.position)?);
    if t == 0 || (rows.is_none() && dclass.is_none() && dposition.is_none()) {
        return Ok(());
    }
    let mut launch = gpu.launch("patch_tokens_bwd_bf16")?;
    let per_block = launch.spec().tile[0];
    let params = PatchTokensBwd {
        dtokens: launch.read(typed(dtokens, DType::Bf16)?),
        rows: rows.as_ref().map_or(Ok(Out::NULL), |r| r.region().map(|r| launch.write(r)))?,
        dclass: dclass.map_or(Ok(Out::NULL), |g| g.region().map(|g| launch.update(g)))?,
        dposition: dposition.map_or(Ok(Out::NULL), |g| g.region().map(|g| launch.update(g)))?,
        tiles: t as i32,
        patches: (n - 1) as i32,
        d: d as i32,
    };
    launch.run([(n * d).div_ceil(per_block), 1, 1], &params)?;
    match rows {
        Some(rows) => lora::backward_params(cx, saved, &rows, &p.conv, route, Some(grads)),
        None => Ok(()),
    }
}
