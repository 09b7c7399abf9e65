//! Conversion between element types.
//!
//! A cast reads and writes each element once, 6 bytes per element, and rounds to nearest even. Saves nothing.

use pheye_kernels::params::{CastToBf16, CastToF32};
use pheye_tensor::{DType, Device, Tensor};

use crate::gpu::{by_dtype, typed};
use crate::{Cx, Result};

/// `x` converted to `dtype`; shares memory with `x` if it has that type.
///
/// ```
/// use pheye_ops::tensor::{DType, Tensor};
/// use pheye_ops::{Cx, elementwise};
///
/// let x = Tensor::from_f32([1], &[1.003])?;
/// let y = elementwise::cast(&Cx::cpu(), &x, DType::Bf16)?;
/// assert_eq!(y.to_vec_f32()?, [1.0]); // bf16 has 8 bits of mantissa
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`crate::Error::Tensor`] when a GPU is out of memory or has no kernel for the element type of `x`,
/// [`crate::Error::Range`] for int8 on a GPU.
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
    let mut l = gpu.launch(by_dtype(dtype, "cast_f32_bf16", "cast_bf16_f32")?)?;
    let (n, y) = (x.shape().elements(), cx.empty_as(x.shape(), dtype)?);
    let grid = [n.div_ceil(l.spec().tile[0]), 1, 1];
    if dtype == DType::Bf16 {
        let p = CastToBf16 { a: l.read(typed(x, DType::F32)?), y: l.write(y.region()?), n: n as u64 };
        l.run(grid, &p)?;
    } else {
        let p = CastToF32 { a: l.read(typed(x, DType::Bf16)?), y: l.write(y.region()?), n: n as u64 };
        l.run(grid, &p)?;
    }
    Ok(y)
}
