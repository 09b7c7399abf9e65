//! LayerNorm on the CPU.

use pheye_cpu::layernorm;
use pheye_tensor::{Grads, Tensor};

use super::{LayerNorm, Saved};
use crate::cpu::to_f32;
use crate::{Cx, Result};

/// y, and the values that backward needs.
pub(super) fn forward(cx: &Cx, x: &Tensor, p: &LayerNorm) -> Result<(Tensor, Saved)> {
    let (mut y, mut stats) = (cx.empty(x.shape())?, cx.empty_f32([x.shape().rows(), 2])?);
    let (weight, bias) = (to_f32(cx, &p.weight.value)?, to_f32(cx, &p.bias.value)?);
    layernorm::forward(y.f32_mut()?, stats.f32_mut()?, x.f32()?, weight.f32()?, bias.f32()?, p.eps);
    Ok((y, Saved { x: x.clone(), stats }))
}

/// dx + dres; adds to the gradients of weight and bias where `grads` is given and they are trained.
pub(super) fn backward(
    cx: &Cx,
    saved: &Saved,
    dy: &Tensor,
    dres: Option<&Tensor>,
    p: &LayerNorm,
    grads: Option<&mut Grads>,
) -> Result<Tensor> {
    let (rows, d) = (dy.shape().rows(), dy.shape().cols());
    let mut dx = cx.empty(dy.shape())?;
    let pieces = if grads.is_some() { rows.div_ceil(layernorm::piece_rows(d)) } else { 0 };
    let mut partial = cx.empty([pieces, 2 * d])?;
    let weight = to_f32(cx, &p.weight.value)?;
    let from = layernorm::Backward {
        dy: dy.f32()?,
        x: saved.x.f32()?,
        stats: saved.stats.f32()?,
        weight: weight.f32()?,
        plus: dres.map(Tensor::f32).transpose()?,
    };
    layernorm::backward(dx.f32_mut()?, partial.f32_mut()?, from);
    if let Some(grads) = grads {
        for (i, param) in [&p.weight, &p.bias].into_iter().enumerate() {
            let Some(sum) = grads.of(param)? else { continue };
            for piece in partial.f32()?.chunks_exact(d.max(1)).skip(i).step_by(2) {
                sum.iter_mut().zip(piece).for_each(|(s, v)| *s += v);
            }
        }
    }
    Ok(dx)
}
