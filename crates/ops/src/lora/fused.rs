//! A LoRA linear with what surrounds it in a network, as `linear/fused.rs` has it.

use pheye_tensor::{Device, Grads, Tensor};

use super::{LoraLinear, Operands, Route, Saved, backward, forward, forward_gpu, gpu};
use crate::linear::{After, Before, check_input, check_output};
use crate::{Cx, Result, gelu};

/// [`forward`] and what follows it. The activation's saved input is there when it is to be kept.
///
/// # Errors
/// Those of [`forward`]; [`crate::Error::Shapes`] when the residual is not of the shape of y.
pub fn forward_with(
    cx: &Cx,
    x: &Tensor,
    p: &LoraLinear,
    route: &Route,
    after: After,
) -> Result<(Tensor, Saved, Option<gelu::Saved>)> {
    check_input(x, &p.base)?;
    after.check("lora", x, p.base.n())?;
    if let Device::Gpu(gpu) = &cx.device {
        let y = cx.empty(x.shape().with_cols(p.base.n()))?;
        let (epilogue, u) = after.epilogue(cx, &y)?;
        let saved = forward_gpu(cx, gpu, &Operands::of(x, p)?, p, route, (&y, epilogue))?;
        return Ok((y, saved, u));
    }
    let (u, saved) = forward(cx, x, p, route)?;
    let (y, u) = after.apply(cx, u)?;
    Ok((y, saved, u))
}

/// [`backward`] and what follows it.
///
/// # Errors
/// Those of [`backward`]; [`crate::Error::Shapes`] when the sum or the activation's input is not of the shape of x.
pub fn backward_with(
    cx: &Cx,
    saved: &Saved,
    dy: &Tensor,
    p: &LoraLinear,
    route: &Route,
    before: Before,
    grads: Option<&mut Grads>,
) -> Result<Tensor> {
    check_output(dy, &p.base)?;
    before.check("lora", dy, p.base.k())?;
    if let Device::Gpu(gpu) = &cx.device {
        let dx = cx.empty(dy.shape().with_cols(p.base.k()))?;
        let from = gpu::Backward::of(saved, dy, p, Some((&dx, before.epilogue()?)))?;
        gpu::backward(cx, gpu, &from, p, route, grads.as_deref())?;
        return Ok(dx);
    }
    before.apply(cx, backward(cx, saved, dy, p, route, grads)?)
}
