//! A LoRA linear fused with its neighbours, as in `linear/fused.rs`; and several linears that take the same x, as q, k and v do: on a GPU
//! their down projections S = drop(x) Aᵀ are computed in one pass over x, or by the LayerNorm that produces x.

use pheye_tensor::{Device, Grads, Tensor};

use super::gpu::down;
use super::{LoraLinear, Operands, Route, Saved, backward, forward, gpu};
use crate::gpu::gemm::Gemm;
use crate::layernorm::{self, LayerNorm};
use crate::linear::{BackwardEpilogue, Epilogue, check_input, check_output, one_each};
use crate::{Cx, Result, gelu};

/// y, what backward needs, and the pre-activation if it is saved.
pub type Output = (Tensor, Saved, Option<gelu::Saved>);

/// [`forward`] with an epilogue.
///
/// # Errors
/// Those of [`forward`]; [`crate::Error::Shapes`] when the residual is not of the shape of y.
pub fn forward_with(cx: &Cx, x: &Tensor, p: &LoraLinear, route: &Route, after: Epilogue) -> Result<Output> {
    let [output] = forward_several(cx, x, [(p, Down::default(), after)], route)?;
    Ok(output)
}

/// [`forward_with`] for several linears of one x, such as q, k and v: on a GPU in one launch, where that fills it better. Each takes the down
/// projection that [`down`] or [`norm_down`] has computed by the same route, or an empty one.
///
/// # Errors
/// Those of [`forward_with`].
pub fn forward_several<const N: usize>(
    cx: &Cx,
    x: &Tensor,
    ps: [(&LoraLinear, Down, Epilogue); N],
    route: &Route,
) -> Result<[Output; N]> {
    let (mut outputs, mut products) = (Vec::with_capacity(N), Vec::with_capacity(N));
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
            None => down::down_of_input(cx, gpu, x, &[p], route)?.pop(),
            Some(low) => {
                low.check(x, p)?;
                Some(low)
            }
        };
        let y = cx.empty(x.shape().with_cols(p.base.n()))?;
        let (epilogue, u) = after.epilogue(cx, &y)?;
        products.push(gpu::product(&Operands::of(x, p)?, p, low.as_ref(), (&y, epilogue))?);
        outputs.push((y, Saved::on_gpu(x, p, route, low), u));
    }
    if let Device::Gpu(gpu) = &cx.device {
        Gemm::run_several(&products, cx, gpu)?;
    }
    Ok(one_each(outputs))
}

/// [`backward`] with an epilogue.
///
/// # Errors
/// Those of [`backward`]; [`crate::Error::Shapes`] when the sum or the activation's input is not of the shape of x.
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

/// The precomputed low-rank product drop(x)·Aᵀ of a LoRA linear; empty on the CPU, which computes it in forward.
#[derive(Debug, Default)]
pub struct Down(Option<down::DownProjected>);

fn check_all(x: &Tensor, ps: &[&LoraLinear], route: &Route) -> Result<()> {
    ps.iter().try_for_each(|p| {
        check_input(x, &p.base)?;
        p.chosen(route, x.shape().rows()).map(|_| ())
    })
}

/// One for each linear, empty where forward has to compute it.
fn downs<const N: usize>(lows: Vec<down::DownProjected>) -> [Down; N] {
    let mut lows = lows.into_iter().map(|low| Down(Some(low)));
    std::array::from_fn(|_| lows.next().unwrap_or_default())
}

/// The down projections of `ps` for the same x, for [`forward_several`].
///
/// # Errors
/// Those of [`forward`].
pub fn down<const N: usize>(cx: &Cx, x: &Tensor, ps: [&LoraLinear; N], route: &Route) -> Result<[Down; N]> {
    check_all(x, &ps, route)?;
    let lows = match &cx.device {
        Device::Cpu => Vec::new(),
        Device::Gpu(gpu) => down::down_of_input(cx, gpu, x, &ps, route)?,
    };
    Ok(downs(lows))
}

/// What [`norm_down`] returns.
#[derive(Debug)]
pub struct Normed<const N: usize> {
    /// LN(x), which the linears take.
    pub y: Tensor,
    /// What the backward of the LayerNorm needs.
    pub saved: layernorm::Saved,
    /// One for each linear.
    pub downs: [Down; N],
}

/// y = LN(x), and the down projections of `ps` for y.
///
/// # Errors
/// Those of [`layernorm::forward`] and [`forward`].
pub fn norm_down<const N: usize>(
    cx: &Cx,
    x: &Tensor,
    norm: &LayerNorm,
    ps: [&LoraLinear; N],
    route: &Route,
) -> Result<Normed<N>> {
    check_all(x, &ps, route)?;
    if let Device::Gpu(gpu) = &cx.device
        && let Some((down, lows)) = down::down_of_norm(cx, gpu, x, norm, &ps, route)?
    {
        return Ok(Normed { y: down.y, saved: down.saved, downs: downs(lows) });
    }
    let (y, saved) = layernorm::forward(cx, x, norm)?;
    let downs = down(cx, &y, ps, route)?;
    Ok(Normed { y, saved, downs })
}
