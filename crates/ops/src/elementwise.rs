//! Values in another element type, and one value everywhere.
//!
//! A cast reads and writes each element once, 6 bytes, and rounds to nearest even; a fill writes 2 or 4. No FLOPs, nothing saved.

use bytemuck::{Pod, Zeroable};
use pheye_tensor::{DType, Device, Tensor};

use crate::gpu::by_dtype;
use crate::{Cx, Result};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Map {
    a: u64,
    y: u64,
    n: u64,
    s: f32,
    pad: u32,
}

/// The values of `x` as `dtype`; shares memory when they are that already.
///
/// # Errors
/// When a GPU has no memory left.
pub fn cast(cx: &Cx, x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    let Device::Gpu(gpu) = &cx.device else {
        if (x.dtype(), dtype) != (DType::F32, DType::Bf16) {
            return Ok(x.to_dtype(dtype)?);
        }
        let mut y = cx.empty_as(x.shape(), dtype)?;
        pheye_cpu::math::round(y.bf16_mut()?, x.f32()?);
        return Ok(y);
    };
    let (n, y) = (x.shape().elements(), cx.empty_as(x.shape(), dtype)?);
    let mut l = gpu.launch(by_dtype(dtype, "cast_f32_bf16", "cast_bf16_f32"))?;
    let p = Map { a: l.read(x.region()?), y: l.write(y.region()?), n: n as u64, s: 0.0, pad: 0 };
    let grid = [n.div_ceil(l.spec().tile[0]), 1, 1];
    l.run(grid, &p)?;
    Ok(y)
}

/// Every element of `x` becomes `value`.
///
/// # Errors
/// On the CPU when `x` is not f32, or not the only view of its memory.
pub fn fill(cx: &Cx, x: &mut Tensor, value: f32) -> Result<()> {
    let Device::Gpu(gpu) = &cx.device else {
        x.f32_mut()?.fill(value);
        return Ok(());
    };
    let n = x.shape().elements();
    let mut l = gpu.launch(by_dtype(x.dtype(), "fill_bf16", "fill_f32"))?;
    let p = Map { a: 0, y: l.write(x.region()?), n: n as u64, s: value, pad: 0 };
    let grid = [n.div_ceil(l.spec().tile[0]), 1, 1];
    Ok(l.run(grid, &p)?)
}
