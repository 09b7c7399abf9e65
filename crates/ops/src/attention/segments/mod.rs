//! The sum of each query's attention weights over each segment of its keys, for example the tiles of an image.
//!
//! y[head, query, n] = Σ softmax(scale·q kᵀ) over the keys `segments[n]..segments[n + 1]` of the query's span. Nothing
//! is saved. 4·lq·lk·heads·head_dim FLOPs on a GPU, half of that on the CPU; q is read once, and k twice for each tile
//! of queries.

use pheye_tensor::{Device, Tensor};

use super::{Heads, Kv, Span};
use crate::{Cx, Error, Result};

mod cpu;
mod gpu;

/// y [heads, rows of q, segments − 1] in f32: the attention of each query to the keys between consecutive elements of
/// `segments`. The elements are key indices relative to the first key of the span, in ascending order, and may exceed
/// the number of keys. y is 0 for rows outside all spans.
///
/// # Errors
/// The errors of [`super::forward`], and [`Error::Range`] when `segments` is not in ascending order.
pub fn segment_sums(
    cx: &Cx,
    q: &Tensor,
    kv: Kv<&Tensor>,
    spans: &[Span],
    heads: &Heads,
    segments: &[usize],
) -> Result<Tensor> {
    super::check(q.shape(), kv.map(Tensor::shape), spans, heads)?;
    super::check_disjoint("a query", spans, |s| s.q.clone())?;
    if !segments.is_sorted() {
        let (value, allowed) = (format!("{segments:?}"), "ascending numbers of keys".to_owned());
        return Err(Error::Range { op: "attention", what: "segments", value, allowed });
    }
    let count = segments.len().saturating_sub(1);
    let mut y = cx.empty_f32([heads.heads, q.shape().rows(), count])?;
    match &cx.device {
        Device::Cpu => cpu::segment_sums(cx, &mut y, (q, kv), (spans, segments), heads)?,
        Device::Gpu(gpu) => gpu::segment_sums(cx, gpu, &y, (q, kv), (spans, segments), heads)?,
    }
    Ok(y)
}
