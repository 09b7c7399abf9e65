//! Rotary position embedding on the CPU.

use pheye_cpu::rotary::{self, Rotation};
use pheye_tensor::Tensor;

use super::Rotary;
use crate::{Cx, Result};

/// Rotates by the angles times `sign`, in place if no other tensor shares the memory of x.
pub(super) fn rotate(cx: &Cx, mut x: Tensor, positions: &[u32], p: &Rotary, sign: f32) -> Result<Tensor> {
    if x.f32_mut().is_err() {
        let mut copy = cx.empty(x.shape())?;
        copy.f32_mut()?.copy_from_slice(x.f32()?);
        x = copy;
    }
    let rotation = Rotation { head_dim: p.head_dim, rot: p.rot, tables: p.tables.f32()?, sign };
    rotary::rotate(x.f32_mut()?, p.heads * p.head_dim, positions, rotation);
    Ok(x)
}
