//! Attention per segment on a GPU.

use pheye_kernels::params::SegmentSums;
use pheye_tensor::{Gpu, Tensor};

use super::{Heads, Kv, Span};
use crate::attention::gpu::{Sizes, choose, matrix, scale_log2, work};
use crate::{Cx, Result};

const KERNELS: Sizes = [
    "attention_segment_sums_bf16_d16",
    "attention_segment_sums_bf16_d32",
    "attention_segment_sums_bf16_d48",
    "attention_segment_sums_bf16_d64",
    "attention_segment_sums_bf16_d80",
    "attention_segment_sums_bf16_d96",
    "attention_segment_sums_bf16_d112",
    "attention_segment_sums_bf16_d128",
];

/// Writes y [heads, rows of q, segments − 1].
pub(super) fn segment_sums(
    cx: &Cx,
    gpu: &Gpu,
    y: &Tensor,
    (q, kv): (&Tensor, Kv<&Tensor>),
    (spans, segments): (&[Span], &[usize]),
    h: &Heads,
) -> Result<()> {
    let (Kv::Split { k, .. } | Kv::Fused(k)) = kv;
    let mut l = gpu.launch(choose(&KERNELS, h)?)?;
    let rows = q.shape().rows();
    let list = work::of_queries(spans, rows, h.causal, l.spec().tile[0]);
    let bounds: Vec<u32> = segments.iter().map(|&s| s.min(i32::MAX as usize) as u32).collect();
    let p = SegmentSums {
        q: l.read(matrix(q)?),
        k: l.read(matrix(k)?),
        y: l.write(y.region()?),
        bounds: l.read(cx.table(&bounds)?),
        items: l.read(cx.table(&work::table(&list))?),
        rows: rows as i32,
        heads: h.heads as i32,
        dim: h.head_dim as i32,
        q_stride: h.width() as i32,
        k_stride: k.shape().cols() as i32,
        segments: segments.len().saturating_sub(1) as i32,
        scale_log2: scale_log2(h),
        causal: h.causal.into(),
    };
    Ok(l.run([list.len(), h.heads, 1], &p)?)
}
