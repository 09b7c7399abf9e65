//! The down projections S = drop(x) Aᵀ of several LoRA linears that take the same x. On a GPU they are computed in one
//! pass over x, or by the LayerNorm that produces x; on the CPU, in the forward of each linear.

use pheye_tensor::{Device, Tensor};

use super::gpu::{self, down::DownProjected};
use super::{LoraLinear, Route};
use crate::layernorm::{self, LayerNorm};
use crate::linear::check_input;
use crate::{Cx, Result};

/// The precomputed down projection drop(x)·Aᵀ of a LoRA linear. It is empty on the CPU, which computes it in forward.
#[derive(Debug, Default)]
pub struct Down(pub(super) Option<DownProjected>);

fn check_all(x: &Tensor, ps: &[&LoraLinear], route: &Route) -> Result<()> {
    ps.iter().try_for_each(|p| {
        check_input(x, &p.base)?;
        p.adapters_of(route, x.shape().rows()).map(|_| ())
    })
}

/// Distributes the projections to the linears; all are empty if there are none.
fn for_each_linear<const N: usize>(lows: Vec<DownProjected>) -> [Down; N] {
    let mut lows = lows.into_iter().map(|low| Down(Some(low)));
    std::array::from_fn(|_| lows.next().unwrap_or_default())
}

/// The down projections of `ps` for the same x, to be passed to [`super::forward_several`].
///
/// # Errors
/// The errors of [`super::forward`].
pub fn down<const N: usize>(cx: &Cx, x: &Tensor, ps: [&LoraLinear; N], route: &Route) -> Result<[Down; N]> {
    check_all(x, &ps, route)?;
    let lows = match &cx.device {
        Device::Cpu => Vec::new(),
        Device::Gpu(gpu) => gpu::down::of_input(cx, gpu, x, &ps, route)?,
    };
    Ok(for_each_linear(lows))
}

/// The result of [`norm_down`].
#[derive(Debug)]
pub struct Normed<const N: usize> {
    /// LN(x), the input of the linears.
    pub y: Tensor,
    /// The values that the backward of the LayerNorm needs.
    pub saved: layernorm::Saved,
    /// The down projection of each linear.
    pub downs: [Down; N],
}

/// y = LN(x), and the down projections of `ps` for y.
///
/// # Errors
/// The errors of [`layernorm::forward`] and [`super::forward`].
pub fn norm_down<const N: usize>(
    cx: &Cx,
    x: &Tensor,
    norm: &LayerNorm,
    ps: [&LoraLinear; N],
    route: &Route,
) -> Result<Normed<N>> {
    check_all(x, &ps, route)?;
    if let Device::Gpu(gpu) = &cx.device
        && let Some((down, lows)) = gpu::down::of_norm(cx, gpu, x, norm, &ps, route)?
    {
        return Ok(Normed { y: down.y, saved: down.saved, downs: for_each_linear(lows) });
    }
    let (y, saved) = layernorm::forward(cx, x, norm)?;
    let downs = down(cx, &y, ps, route)?;
    Ok(Normed { y, saved, downs })
}
