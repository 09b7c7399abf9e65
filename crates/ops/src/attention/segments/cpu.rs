//! Attention per segment on the CPU, from the full softmax of each query.

use pheye_tensor::Tensor;

use super::{Heads, Kv, Span};
use crate::cpu::to_f32;
use crate::{Cx, Result};

/// Writes y [heads, rows of q, segments − 1].
pub(super) fn segment_sums(
    cx: &Cx,
    y: &mut Tensor,
    (q, kv): (&Tensor, Kv<&Tensor>),
    (spans, segments): (&[Span], &[usize]),
    h: &Heads,
) -> Result<()> {
    let (Kv::Split { k, .. } | Kv::Fused(k)) = kv;
    let (queries, k_stride, k) = (q.f32()?, k.shape().cols(), to_f32(cx, k)?);
    let (keys, y) = (k.f32()?, y.f32_mut()?);
    y.fill(0.0);
    let (rows, count) = (queries.len() / h.width(), segments.len().saturating_sub(1));
    let mut p = Vec::new();
    for head in 0..h.heads {
        let columns = |row: usize, stride: usize| {
            row * stride + head * h.head_dim..row * stride + (head + 1) * h.head_dim
        };
        for (s, (i, row)) in spans.iter().flat_map(|s| s.q.clone().enumerate().map(move |at| (s, at))) {
            let causal = (s.k.len() + i + 1).saturating_sub(s.q.len());
            let seen = if h.causal { causal } else { s.k.len() };
            let q = &queries[columns(row, h.width())];
            let score = |key: usize| {
                let k = &keys[columns(key, k_stride)];
                h.scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>()
            };
            p.clear();
            p.extend((s.k.start..s.k.start + seen).map(score));
            let max = p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            p.iter_mut().for_each(|p| *p = (*p - max).exp());
            let total: f32 = p.iter().sum();
            let to = &mut y[(head * rows + row) * count..][..count];
            for (to, bounds) in to.iter_mut().zip(segments.windows(2)).filter(|_| seen > 0) {
                *to = p[bounds[0].min(seen)..bounds[1].min(seen)].iter().sum::<f32>() / total;
            }
        }
    }
    Ok(())
}
