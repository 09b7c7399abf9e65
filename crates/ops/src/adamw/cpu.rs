//! AdamW and the gradient norm on the CPU.

use pheye_cpu::adamw::{self, Step};
use pheye_tensor::{Grads, Param};

use super::Moments;
use crate::Result;

/// Updates the trained parameters one after another.
pub(super) fn step(params: &mut [&mut Param], grads: &Grads, moments: &mut Moments, s: Step) -> Result<()> {
    let (g, m, v) = (grads.flat.f32()?, moments.m.f32_mut()?, moments.v.f32_mut()?);
    for p in params {
        let Some(at) = grads.table.range(p) else { continue };
        adamw::step(p.value.f32_mut()?, &mut m[at.clone()], &mut v[at.clone()], &g[at], s);
    }
    Ok(())
}

/// The gradient norm √Σg².
pub(super) fn global_norm(grads: &Grads) -> Result<f64> {
    Ok(adamw::sum_of_squares(grads.flat.f32()?).sqrt())
}
