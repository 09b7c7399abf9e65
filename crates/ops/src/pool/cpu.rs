//! Mean pooling on the CPU.

use pheye_tensor::Tensor;

use crate::{Cx, Result};

/// y [groups, d].
pub(super) fn forward(cx: &Cx, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let d = x.shape().cols();
    let mut y = cx.zeros([lengths.len(), d])?;
    let mut rows = x.f32()?.chunks_exact(d);
    for (out, &n) in y.f32_mut()?.chunks_exact_mut(d).zip(lengths) {
        for row in rows.by_ref().take(n) {
            out.iter_mut().zip(row).for_each(|(o, v)| *o += v);
        }
        out.iter_mut().for_each(|o| *o /= n as f32);
    }
    Ok(y)
}

/// dx [rows, d].
pub(super) fn backward(cx: &Cx, dy: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let d = dy.shape().cols();
    let mut dx = cx.empty([lengths.iter().sum(), d])?;
    let mut rows = dx.f32_mut()?.chunks_exact_mut(d);
    for (dy, &n) in dy.f32()?.chunks_exact(d).zip(lengths) {
        for row in rows.by_ref().take(n) {
            row.iter_mut().zip(dy).for_each(|(o, v)| *o = v / n as f32);
        }
    }
    Ok(dx)
}
