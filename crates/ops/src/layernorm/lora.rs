//! LayerNorm with the first half of the LoRA linears behind it: S = LN(x)·Aᵀ.
//!
//! Several adapters that take the same y, as q, k and v do, lay their A one below another and share the pass. One pass over x on a GPU
//! where the kernel has room (at most 1280 columns, 48 rows of A), else the product reads y again.

use pheye_kernels::params::LayerNormLora;
use pheye_tensor::{DType, Device, Gpu, Param, Tensor};

use super::{LayerNorm, Saved, check, check_params, forward};
use crate::gpu::typed;
use crate::linear::{self, Linear};
use crate::{Cx, Result};

/// What [`forward_lora_down`] returns.
#[derive(Debug)]
pub struct LoraDown {
    /// LN(x).
    pub y: Tensor,
    /// y·Aᵀ [rows, n].
    pub s: Tensor,
    /// What backward needs.
    pub saved: Saved,
}

/// y = LN(x) and S = y·Aᵀ for `a` [n, d] of the type of y.
///
/// # Errors
/// When weight, bias or a are not as wide as x, and when there is no memory.
pub fn forward_lora_down(cx: &Cx, x: &Tensor, p: &LayerNorm, a: &Tensor) -> Result<LoraDown> {
    check("A", a, "x", x, a.shape().cols() == x.shape().cols())?;
    check_params(x, p)?;
    if let Device::Gpu(gpu) = &cx.device
        && let Some(kernel) = choose(gpu, x, a)?
    {
        return fused(cx, gpu, kernel, x, p, a);
    }
    let (y, saved) = forward(cx, x, p)?;
    let down = Linear { weight: Param::frozen("A", a.clone()), bias: None };
    let (s, _) = linear::forward(cx, &y, &down)?;
    Ok(LoraDown { y, s, saved })
}

/// The narrowest kernel with room for A, if there is one and everything lies as it takes it.
fn choose(gpu: &Gpu, x: &Tensor, a: &Tensor) -> Result<Option<&'static str>> {
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

fn fused(
    cx: &Cx,
    gpu: &Gpu,
    kernel: &'static str,
    x: &Tensor,
    p: &LayerNorm,
    a: &Tensor,
) -> Result<LoraDown> {
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
    Ok(LoraDown { saved: Saved { x: x.clone(), stats }, y, s })
}
