//! Patch embedding on the CPU.

use pheye_cpu::gemm::add_column_sums;
use pheye_cpu::par;
use pheye_tensor::{Grads, Param, Tensor};

use super::PatchEmbed;
use crate::cpu::to_f32;
use crate::lora::{self, Route};
use crate::{Cx, Result};

/// Writes tokens [t, 1 + g·g, d] for pixels [t, c, s, s]; the route is over patches.
pub(super) fn forward(
    cx: &Cx,
    pixels: &Tensor,
    p: &PatchEmbed,
    route: &Route,
    tokens: &mut Tensor,
) -> Result<lora::Saved> {
    let (d, k, side) = (p.conv.base.n(), p.conv.base.k(), p.patch);
    let (t, size) = (pixels.shape().dims()[0], pixels.shape().cols());
    let g = size / side;
    let n = 1 + g * g;
    let mut patches = cx.empty([t * g * g, k])?;
    let from = pixels.f32()?;
    par::rows(patches.f32_mut()?, k, g, from.len(), |first, out| {
        // One row of patches of a tile: each of its rows of pixels is read once.
        let (tile, y) = (first / (g * g), first / g % g);
        for (at, line) in out.chunks_exact_mut(side).enumerate() {
            let (px, c, dy) = (at * side / k, at * side % k / (side * side), at % side);
            let row = (tile * k / (side * side) + c) * g * side + y * side + dy;
            line.copy_from_slice(&from[row * g * side + px * side..][..side]);
        }
    });
    let (rows, conv) = lora::forward(cx, &patches, &p.conv, route)?;
    let (class, position) = (to_f32(cx, &p.class.value)?, to_f32(cx, &p.position.value)?);
    let (rows, class, position) = (rows.f32()?, class.f32()?, position.f32()?);
    par::rows(tokens.f32_mut()?, d, n, rows.len(), |first, out| {
        let tile = &rows[first / n * g * g * d..][..g * g * d];
        out.iter_mut().zip(class.iter().chain(tile)).zip(position).for_each(|((o, x), e)| *o = x + e);
    });
    Ok(conv)
}

/// Adds the gradients of trained parameters, given the gradient of the tokens.
pub(super) fn backward(
    cx: &Cx,
    saved: &lora::Saved,
    dtokens: &Tensor,
    p: &PatchEmbed,
    route: &Route,
    grads: &mut Grads,
) -> Result<()> {
    let d = p.conv.base.n();
    let n = p.position.shape().elements() / d.max(1);
    let t = dtokens.shape().rows() / n.max(1);
    let from = dtokens.f32()?;
    if let Some(dclass) = grads.of(&p.class)? {
        for tile in from.chunks_exact(n * d) {
            dclass.iter_mut().zip(tile).for_each(|(c, x)| *c += x);
        }
    }
    if let Some(dposition) = grads.of(&p.position)? {
        add_column_sums(dposition, from);
    }
    if p.conv.params().any(Param::is_trained) {
        let mut rows = cx.empty([t * (n - 1), d])?;
        par::rows(rows.f32_mut()?, d, n - 1, from.len(), |first, out| {
            let tile = first / (n - 1);
            out.copy_from_slice(&from[(tile * n + 1) * d..][..out.len()]);
        });
        lora::backward_params(cx, saved, &rows, &p.conv, route, Some(grads))?;
    }
    Ok(())
}
