//! LayerNorm on a GPU: the choice of the kernel by width, and the launches.

use pheye_kernels::params::{LayerNormAffine, LayerNormBwd, LayerNormFwd, LayerNormLora};
use pheye_tensor::{DType, Gpu, Grads, Tensor};

use super::{LayerNorm, LoraDown, Saved};
use crate::gpu::{add_partial_rows, by_dtype, read_optional, typed};
use crate::{Cx, Result};

/// Kernels by width, each for bf16 and f32: one warp per row, one block per row, and one block per row of any width and
/// alignment.
struct Variants {
    warp: [&'static str; 2],
    block: [&'static str; 2],
    any: [&'static str; 2],
}

const FORWARD: Variants = Variants {
    warp: ["layernorm_fwd_bf16_warp", "layernorm_fwd_f32_warp"],
    block: ["layernorm_fwd_bf16_block", "layernorm_fwd_f32_block"],
    any: ["layernorm_fwd_bf16_any", "layernorm_fwd_f32_any"],
};
const BACKWARD: Variants = Variants {
    warp: ["layernorm_bwd_bf16_warp", "layernorm_bwd_f32_warp"],
    block: ["layernorm_bwd_bf16_block", "layernorm_bwd_f32_block"],
    any: ["layernorm_bwd_bf16_any", "layernorm_bwd_f32_any"],
};

/// The kernel for rows of `cols` elements at these addresses. The `.cu` file declares the maximum width of each kernel.
fn choose(gpu: &Gpu, v: &Variants, dtype: DType, cols: usize, addresses: &[u64]) -> Result<&'static str> {
    if cols.is_multiple_of(8) && addresses.iter().all(|a| a.is_multiple_of(16)) {
        for [bf16, f32] in [v.warp, v.block] {
            let name = by_dtype(dtype, bf16, f32)?;
            if cols <= gpu.launch(name)?.spec().tile[0] {
                return Ok(name);
            }
        }
    }
    let [bf16, f32] = v.any;
    by_dtype(dtype, bf16, f32)
}

/// Addresses of the tensors that are given.
fn addresses(tensors: &[Option<&Tensor>]) -> Result<Vec<u64>> {
    tensors.iter().flatten().map(|t| Ok(t.region()?.addr())).collect()
}

/// The grid for `rows` rows with `each` rows per block. It has a maximum size, beyond which blocks loop over rows.
fn blocks(gpu: &Gpu, rows: usize, each: usize) -> [usize; 3] {
    [rows.div_ceil(each).min(32 * gpu.sms()), 1, 1]
}

/// y, and the values that backward needs.
pub(super) fn forward(cx: &Cx, gpu: &Gpu, x: &Tensor, p: &LayerNorm) -> Result<(Tensor, Saved)> {
    let (dtype, rows, cols) = (x.dtype(), x.shape().rows(), x.shape().cols());
    let y = cx.empty_as(x.shape(), dtype)?;
    let stats = cx.empty_f32([rows, 2])?;
    let (weight, bias) = (&p.weight.value, &p.bias.value);
    let all = addresses(&[Some(x), Some(&y), Some(weight), Some(bias)])?;
    let mut l = gpu.launch(choose(gpu, &FORWARD, dtype, cols, &all)?)?;
    let params = LayerNormFwd {
        x: l.read(x.region()?),
        y: l.write(y.region()?),
        weight: l.read(typed(weight, DType::F32)?),
        bias: l.read(typed(bias, DType::F32)?),
        stats: l.write(stats.region()?),
        rows: rows as i32,
        cols: cols as i32,
        eps: p.eps,
    };
    let grid = blocks(gpu, rows, l.spec().tile[1]);
    l.run(grid, &params)?;
    Ok((y, Saved { x: x.clone(), stats }))
}

/// dx + dres, written to the memory of dres if no other tensor shares it; adds to the gradients of weight and bias
/// where `grads` is given and they are trained.
pub(super) fn backward(
    cx: &Cx,
    gpu: &Gpu,
    saved: &Saved,
    dy: &Tensor,
    dres: Option<Tensor>,
    p: &LayerNorm,
    grads: Option<&Grads>,
) -> Result<Tensor> {
    if let Some(grads) = grads {
        add_affine_grads(cx, gpu, saved, dy, p, grads)?;
    }
    let (dtype, rows, cols) = (dy.dtype(), dy.shape().rows(), dy.shape().cols());
    let in_place = dres.as_ref().is_some_and(Tensor::is_sole_view);
    let (dres, dx) = match dres {
        Some(dres) if in_place => (None, dres),
        dres => (dres, cx.empty_as(dy.shape(), dtype)?),
    };
    let weight = &p.weight.value;
    let all = addresses(&[Some(dy), Some(&saved.x), dres.as_ref(), Some(&dx), Some(weight)])?;
    let mut l = gpu.launch(choose(gpu, &BACKWARD, dtype, cols, &all)?)?;
    let (from, to) = if in_place {
        let both = l.update(typed(&dx, dtype)?);
        (both.input(), both)
    } else {
        (read_optional(&mut l, dres.as_ref(), dtype)?, l.write(dx.region()?))
    };
    let params = LayerNormBwd {
        dy: l.read(dy.region()?),
        x: l.read(typed(&saved.x, dtype)?),
        stats: l.read(saved.stats.region()?),
        weight: l.read(typed(weight, DType::F32)?),
        dres: from,
        dx: to,
        rows: rows as i32,
        cols: cols as i32,
    };
    let grid = blocks(gpu, rows, l.spec().tile[1]);
    l.run(grid, &params)?;
    Ok(dx)
}

/// Adds to the gradients of weight and bias where they are trained.
fn add_affine_grads(
    cx: &Cx,
    gpu: &Gpu,
    saved: &Saved,
    dy: &Tensor,
    p: &LayerNorm,
    grads: &Grads,
) -> Result<()> {
    let (dtype, rows, cols) = (dy.dtype(), dy.shape().rows(), dy.shape().cols());
    if rows == 0 {
        return Ok(());
    }
    let name = by_dtype(dtype, "layernorm_bwd_affine_bf16", "layernorm_bwd_affine_f32")?;
    let mut l = gpu.launch(name)?;
    let [width, height, _] = l.spec().tile;
    let tiles = cols.div_ceil(width);
    // Two blocks per multiprocessor, if each of their warps then still has a few rows.
    let pieces = (2 * gpu.sms()).div_ceil(tiles.max(1)).min(rows.div_ceil(4 * height));
    let partial = cx.empty_f32([pieces, 2 * cols])?;
    let params = LayerNormAffine {
        dy: l.read(dy.region()?),
        x: l.read(typed(&saved.x, dtype)?),
        stats: l.read(saved.stats.region()?),
        partial: l.write(partial.region()?),
        rows: rows as i32,
        cols: cols as i32,
    };
    l.run([tiles, pieces, 1], &params)?;
    for (first, param) in [(0, &p.weight), (cols, &p.bias)] {
        if let Some(sum) = grads.view(param)? {
            add_partial_rows(gpu, &sum, &partial, first)?;
        }
    }
    Ok(())
}

/// The narrowest kernel that A fits into, if there is one and types and alignment allow it.
fn lora_kernel(gpu: &Gpu, x: &Tensor, a: &Tensor) -> Result<Option<&'static str>> {
    let (cols, n) = (x.shape().cols(), a.shape().rows());
    for t in [x, a] {
        if t.dtype() != DType::Bf16 || cols % 8 != 0 || t.region()?.addr() % 16 != 0 {
            return Ok(None);
        }
    }
    for name in ["layernorm_lora_fwd_bf16_16", "layernorm_lora_fwd_bf16_48"] {
        let [widest, most, _] = gpu.launch(name)?.spec().tile;
        if cols <= widest && n <= most {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// y = LN(x) and S = y·Aᵀ in one pass, or `None` if A fits into no kernel.
pub(super) fn forward_lora_down(
    cx: &Cx,
    gpu: &Gpu,
    x: &Tensor,
    p: &LayerNorm,
    a: &Tensor,
) -> Result<Option<LoraDown>> {
    let Some(kernel) = lora_kernel(gpu, x, a)? else { return Ok(None) };
    let (dtype, rows, cols, n) = (DType::Bf16, x.shape().rows(), x.shape().cols(), a.shape().rows());
    let y = cx.empty_as(x.shape(), dtype)?;
    let s = cx.empty_as([rows, n], dtype)?;
    let stats = cx.empty_f32([rows, 2])?;
    let mut l = gpu.launch(kernel)?;
    let params = LayerNormLora {
        x: l.read(x.region()?),
        y: l.write(y.region()?),
        weight: l.read(typed(&p.weight.value, DType::F32)?),
        bias: l.read(typed(&p.bias.value, DType::F32)?),
        stats: l.write(stats.region()?),
        a: l.read(a.region()?),
        s: l.write(s.region()?),
        rows: rows as i32,
        cols: cols as i32,
        n: n as i32,
        eps: p.eps,
    };
    let grid = [rows.div_ceil(l.spec().tile[2]).min(gpu.sms()), 1, 1];
    l.run(grid, &params)?;
    Ok(Some(LoraDown { saved: Saved { x: x.clone(), stats }, y, s }))
}
