//! Moving rows on the CPU.

use pheye_tensor::Tensor;

use crate::{Cx, Result};

/// `into[at[i]] = x[i]`.
pub(super) fn scatter(into: &mut Tensor, x: &Tensor, at: &[usize]) -> Result<()> {
    let (d, into) = (x.shape().cols(), into.f32_mut()?);
    for (row, &to) in x.f32()?.chunks_exact(d).zip(at) {
        into[to * d..(to + 1) * d].copy_from_slice(row);
    }
    Ok(())
}

/// `y[i] = x[from[i]]`.
pub(super) fn gather(cx: &Cx, x: &Tensor, from: &[usize]) -> Result<Tensor> {
    let d = x.shape().cols();
    let mut y = cx.empty([from.len(), d])?;
    let x = x.f32()?;
    for (row, &from) in y.f32_mut()?.chunks_exact_mut(d).zip(from) {
        row.copy_from_slice(&x[from * d..(from + 1) * d]);
    }
    Ok(y)
}

/// Concatenates `parts` to a matrix of shape `shape`.
pub(super) fn concat(cx: &Cx, parts: &[&Tensor], shape: [usize; 2]) -> Result<Tensor> {
    let mut y = cx.empty(shape)?;
    let mut rest = y.f32_mut()?;
    for part in parts {
        let (head, tail) = rest.split_at_mut(part.shape().elements());
        head.copy_from_slice(part.f32()?);
        rest = tail;
    }
    Ok(y)
}
