//! The column of the largest value of each row: greedy decoding.
//!
//! Of equal values the first wins, as in PyTorch. A NaN counts as larger than every number, so that it is not
//! overlooked.

use pheye_kernels::Out;
use pheye_kernels::params::Choice;
use pheye_tensor::{Device, Gpu, Region, Tensor};

use crate::gpu::{by_dtype, read_words};
use crate::{Cx, Result};

/// argmax over the columns of x [n, v]; returns n column indices.
///
/// ```
/// use pheye_ops::{Cx, argmax, tensor::Tensor};
///
/// let logits = Tensor::from_f32([2, 3], &[0.1, 0.7, 0.2, 5.0, 1.0, 5.0])?;
/// assert_eq!(argmax::forward(&Cx::cpu(), &logits)?, [1, 0]); // the first of equals
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When x is not on the context's device or its element type is not supported.
pub fn forward(cx: &Cx, x: &Tensor) -> Result<Vec<u32>> {
    match &cx.device {
        Device::Cpu => {
            let best = |row: &[f32]| {
                let mut best = 0;
                for (i, &v) in row.iter().enumerate() {
                    if v > row[best] || (v.is_nan() && !row[best].is_nan()) {
                        best = i;
                    }
                }
                best as u32
            };
            Ok(x.f32()?.chunks_exact(x.shape().cols().max(1)).map(best).collect())
        }
        Device::Gpu(_) if x.shape().elements() == 0 => Ok(vec![0; x.shape().rows()]),
        Device::Gpu(gpu) => {
            let ids = cx.empty_f32([x.shape().rows()])?;
            launch(gpu, x, ids.region()?)?;
            read_words(gpu, &ids)
        }
    }
}

/// Queues argmax of x [n, v], v > 0, which writes the column indices to `ids` as n u32.
///
/// # Errors
/// [`crate::Error::Tensor`] when the launch fails.
pub fn launch(gpu: &Gpu, x: &Tensor, ids: Region) -> Result<()> {
    let mut l = gpu.launch(by_dtype(x.dtype(), "argmax_fwd_bf16", "argmax_fwd_f32")?)?;
    let cols = x.shape().cols() as i32;
    let p = Choice { x: l.read(x.region()?), ids: l.write(ids), values: Out::NULL, cols, k: 1 };
    Ok(l.run([x.shape().rows(), 1, 1], &p)?)
}
