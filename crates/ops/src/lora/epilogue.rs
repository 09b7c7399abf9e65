//! LoRA linears with an epilogue, as in [`crate::linear`], and several LoRA linears that take the same x, such as q, k
//! and v.

use pheye_tensor::{Device, Grads, Tensor};

use super::{Down, LoraLinear, Route, Saved, backward, forward, gpu};
use crate::gpu::gemm::Gemm;
use crate::linear::{BackwardEpilogue, Epilogue, check_input, check_output, into_array};
use crate::{Cx, Result, gelu};

/// y, the values that backward needs, and the pre-activation u if it is saved.
pub type Output = (Tensor, Saved, Option<gelu::Saved>);

/// [`forward`] with an epilogue.
///
/// # Errors
/// The errors of [`forward`], and [`crate::Error::Shapes`] when residual and y differ in size.
pub fn forward_with(cx: &Cx, x: &Tensor, p: &LoraLinear, route: &Route, after: Epilogue) -> Result<Output> {
    let [output] = forward_several(cx, x, [(p, Down::default(), after)], route)?;
    Ok(output)
}

/// [`forward_with`] for several linears of the same x, such as q, k and v. On a GPU it is one launch if that fills the
/// GPU better. Each linear takes the down projection that [`down`](fn@super::down) or [`norm_down`](super::norm_down)
/// computed for the same route, or an empty one.
///
/// # Errors
/// The errors of [`forward_with`].
pub fn forward_several<const N: usize>(
    cx: &Cx,
    x: &Tensor,
    ps: [(&LoraLinear, Down, Epilogue); N],
    route: &Route,
) -> Result<[Output; N]> {
    let (mut outputs, mut gemms) = (Vec::with_capacity(N), Vec::with_capacity(N));
    for (p, down, after) in ps {
        check_input(x, &p.base)?;
        after.check("lora", x, p.base.n())?;
        let Device::Gpu(gpu) = &cx.device else {
            let (u, saved) = forward(cx, x, p, route)?;
            let (y, u) = after.apply(cx, u)?;
            outputs.push((y, saved, u));
            continue;
        };
        let low = match down.0 {
            None => gpu::down::of_input(cx, gpu, x, &[p], route)?.pop(),
            Some(low) => {
                low.check(x, p)?;
                Some(low)
            }
        };
        let y = cx.empty(x.shape().with_cols(p.base.n()))?;
        let (epilogue, u) = after.epilogue(cx, &y)?;
        gemms.push(gpu::gemm(&gpu::Operands::of(x, p)?, p, low.as_ref(), (&y, epilogue))?);
        outputs.push((y, gpu::saved(x, p, route, low), u));
    }
    if let Device::Gpu(gpu) = &cx.device {
        Gemm::run_several(&gemms, cx, gpu)?;
    }
    Ok(into_array(outputs))
}

/// [`backward`] with an epilogue.
///
/// # Errors
/// The errors of [`backward`], and [`crate::Error::Shapes`] when the sum or u differs from x in size.
pub fn backward_with(
    cx: &Cx,
    saved: &Saved,
    dy: &Tensor,
    p: &LoraLinear,
    route: &Route,
    before: BackwardEpilogue,
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
