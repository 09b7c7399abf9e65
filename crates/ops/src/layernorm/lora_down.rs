//! LayerNorm fused with the down projections of the LoRA linears that follow it: S = LN(x)·Aᵀ.
//!
//! The A of several adapters that take the same y, such as those of q, k and v, are stacked and share one pass over x.
//! This needs a GPU, at most 1280 columns and at most 48 rows of A. Otherwise a GEMM computes S from y.

use pheye_tensor::{Device, Param, Tensor};

use super::{LayerNorm, Saved, check, check_params, forward, gpu};
use crate::linear::{self, Linear};
use crate::{Cx, Result};

/// The result of [`forward_lora_down`].
#[derive(Debug)]
pub struct LoraDown {
    /// LN(x).
    pub y: Tensor,
    /// S = y·Aᵀ [rows, n].
    pub s: Tensor,
    /// The values that the backward of the LayerNorm needs.
    pub saved: Saved,
}

/// y = LN(x) and S = y·Aᵀ for `a` [n, d] in the type of y.
///
/// # Errors
/// [`crate::Error::Shapes`] when weight, bias or a are not as wide as x, and [`crate::Error::Tensor`] when a GPU is out
/// of memory or fails.
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
