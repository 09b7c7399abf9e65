//! LayerNorm with the down projection of the LoRA linears behind it: S = LN(x)·Aᵀ.
//!
//! Several adapters that take the same y, as q, k and v do, stack their A and share the pass. On a GPU it is one pass over x where
//! the kernel has room (at most 1280 columns, 48 rows of A). Otherwise, and on the CPU, a GEMM reads y again.

use pheye_tensor::{Device, Param, Tensor};

use super::{LayerNorm, Saved, check, check_params, forward, gpu};
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
        && let Some(down) = gpu::forward_lora_down(cx, gpu, x, p, a)?
    {
        return Ok(down);
    }
    let (y, saved) = forward(cx, x, p)?;
    let down = Linear { weight: Param::frozen("A", a.clone()), bias: None };
    let (s, _) = linear::forward(cx, &y, &down)?;
    Ok(LoraDown { y, s, saved })
}
