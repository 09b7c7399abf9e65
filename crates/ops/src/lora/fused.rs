//! A LoRA linear with what surrounds it in a network, as `linear/fused.rs` has it; and several that take the same x, as q, k
//! and v do: on a GPU their low-rank sides S = drop(x) Aᵀ come of one pass over x, or of the LayerNorm that makes x.

use pheye_tensor::{Device, Grads, Tensor};

use super::{LoraLinear, Operands, Route, Saved, backward, forward, forward_gpu, gpu, low};
use crate::layernorm::{self, LayerNorm};
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

/// The low-rank side of a linear for some x, as far as the device computes it ahead.
#[derive(Debug, Default)]
pub struct Down(Option<low::Low>);

fn check_all(x: &Tensor, ps: &[&LoraLinear], route: &Route) -> Result<()> {
    ps.iter().try_for_each(|p| {
        check_input(x, &p.base)?;
        p.chosen(route, x.shape().rows()).map(|_| ())
    })
}

/// One for each linear; where there are none, forward computes them.
fn one_each<const N: usize>(lows: Vec<low::Low>) -> [Down; N] {
    let mut lows = lows.into_iter().map(|low| Down(Some(low)));
    std::array::from_fn(|_| lows.next().unwrap_or_default())
}

/// The low-rank sides of `ps` for the same x, one for each, for [`forward_from`].
///
/// # Errors
/// Those of [`forward`].
pub fn down<const N: usize>(cx: &Cx, x: &Tensor, ps: [&LoraLinear; N], route: &Route) -> Result<[Down; N]> {
    check_all(x, &ps, route)?;
    let lows = match &cx.device {
        Device::Cpu => Vec::new(),
        Device::Gpu(gpu) => low::lows(cx, gpu, x, &ps, route)?,
    };
    Ok(one_each(lows))
}

/// What [`norm_down`] returns.
#[derive(Debug)]
pub struct Normed<const N: usize> {
    /// x + r; x itself without r.
    pub h: Tensor,
    /// LN(h), which the linears take.
    pub y: Tensor,
    /// What the backward of the LayerNorm needs.
    pub saved: layernorm::Saved,
    /// One for each linear.
    pub downs: [Down; N],
}

/// h = x + r or x, y = LN(h), and the low-rank sides of `ps` for y.
///
/// # Errors
/// Those of [`layernorm::forward_residual`] and [`forward`].
pub fn norm_down<const N: usize>(
    cx: &Cx,
    x: Tensor,
    r: Option<&Tensor>,
    norm: &LayerNorm,
    ps: [&LoraLinear; N],
    route: &Route,
) -> Result<Normed<N>> {
    check_all(&x, &ps, route)?;
    if let Device::Gpu(gpu) = &cx.device
        && let Some((down, lows)) = low::lows_of_norm(cx, gpu, (x.clone(), r), norm, &ps, route)?
    {
        return Ok(Normed { h: down.h, y: down.y, saved: down.saved, downs: one_each(lows) });
    }
    let (h, y, saved) = match r {
        Some(r) => layernorm::forward_residual(cx, x, r, norm)?,
        None => {
            let (y, saved) = layernorm::forward(cx, &x, norm)?;
            (x, y, saved)
        }
    };
    let downs = down(cx, &y, ps, route)?;
    Ok(Normed { h, y, saved, downs })
}

/// [`forward_with`] for the x of which [`down`] or [`norm_down`] has computed the low-rank side, by the same route.
///
/// # Errors
/// Those of [`forward_with`].
pub fn forward_from(
    cx: &Cx,
    x: &Tensor,
    from: Down,
    p: &LoraLinear,
    route: &Route,
    after: After,
) -> Result<(Tensor, Saved, Option<gelu::Saved>)> {
    let (Device::Gpu(gpu), Some(low)) = (&cx.device, from.0) else {
        return forward_with(cx, x, p, route, after);
    };
    check_input(x, &p.base)?;
    after.check("lora", x, p.base.n())?;
    low.check(x, p)?;
    let y = cx.empty(x.shape().with_cols(p.base.n()))?;
    let (epilogue, u) = after.epilogue(cx, &y)?;
    let gpu = gpu::forward(cx, gpu, &Operands::of(x, p)?, p, Some(low), (&y, epilogue))?;
    Ok((y, Saved { x: p.keeps_x(route).then(|| x.clone()), s: Vec::new(), gpu }, u))
}
