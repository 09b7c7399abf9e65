//! The column of each row's largest value: greedy choice of the next token.
//!
//! The first of equal values wins, as in PyTorch; a NaN is larger than every number, so that it does not pass unseen.

use pheye_tensor::{Device, Tensor};

use crate::{Cx, Error, Result};

/// argmax over the columns of x [n, v]: n column numbers.
///
/// # Errors
/// Those of the tensor.
pub fn forward(cx: &Cx, x: &Tensor) -> Result<Vec<u32>> {
    match cx.device {
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
        Device::Gpu(_) => return Err(Error::CpuOnly { op: "argmax" }),
    }
}
