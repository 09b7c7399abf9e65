//! How much of each query's attention falls on each segment of its keys: which tiles of a picture a word looks at.
//!
//! y[head, query, n] = Σ softmax(scale·q kᵀ) over the keys segments[n]..segments[n + 1] of the query's span. Nothing is saved.
//! 4·lq·lk·heads·head_dim FLOPs on a GPU, half of that on the CPU; reads q once, and k twice for each tile of queries.

use pheye_kernels::params::SegmentSums;
use pheye_tensor::{Device, Gpu, Tensor};

use super::gpu::{self, Sizes};
use super::{Heads, Kv, Span};
use crate::cpu::to_f32;
use crate::{Cx, Error, Result};

/// y [heads, rows of q, segments − 1] f32: the attention of each query to the keys between one of `segments` and the next. They
/// are counted from the first key of the span, ascend, and may go beyond its last. 0 for rows outside all spans.
///
/// # Errors
/// As [`super::forward`], and [`Error::Range`] when `segments` do not ascend.
pub fn segment_sums(
    cx: &Cx,
    q: &Tensor,
    kv: Kv<&Tensor>,
    spans: &[Span],
    heads: &Heads,
    segments: &[usize],
) -> Result<Tensor> {
    super::check(q.shape(), kv.map(Tensor::shape), spans, heads)?;
    super::apart("a query", spans, |s| s.q.clone())?;
    if !segments.is_sorted() {
        let (value, allowed) = (format!("{segments:?}"), "ascending numbers of keys".to_owned());
        return Err(Error::Range { op: "attention", what: "segments", value, allowed });
    }
    let count = segments.len().saturating_sub(1);
    let mut y = cx.empty_f32([heads.heads, q.shape().rows(), count])?;
    match &cx.device {
        Device::Cpu => {
            let (Kv::Split { k, .. } | Kv::Fused(k)) = kv;
            let x = Scored { q: q.f32()?, k: to_f32(cx, k)?, stride: k.shape().cols() };
            on_cpu(y.f32_mut()?, &x, spans, heads, segments)?;
        }
        Device::Gpu(gpu) => on_gpu(cx, gpu, &y, (q, &kv), (spans, segments), heads)?,
    }
    Ok(y)
}

/// Queries, and keys of their own row length.
struct Scored<'a> {
    q: &'a [f32],
    k: Tensor,
    stride: usize,
}

fn on_cpu(y: &mut [f32], x: &Scored, spans: &[Span], h: &Heads, segments: &[usize]) -> Result<()> {
    y.fill(0.0);
    let (rows, count) = (x.q.len() / h.width(), segments.len().saturating_sub(1));
    let keys = x.k.f32()?;
    let mut p = Vec::new();
    for head in 0..h.heads {
        let columns = |row: usize, stride: usize| {
            row * stride + head * h.head_dim..row * stride + (head + 1) * h.head_dim
        };
        for (s, (i, row)) in spans.iter().flat_map(|s| s.q.clone().enumerate().map(move |at| (s, at))) {
            let causal = (s.k.len() + i + 1).saturating_sub(s.q.len());
            let seen = if h.causal { causal } else { s.k.len() };
            let q = &x.q[columns(row, h.width())];
            let score = |key: usize| {
                let k = &keys[columns(key, x.stride)];
                h.scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>()
            };
            p.clear();
            p.extend((s.k.start..s.k.start + seen).map(score));
            let top = p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            p.iter_mut().for_each(|p| *p = (*p - top).exp());
            let total: f32 = p.iter().sum();
            let to = &mut y[(head * rows + row) * count..][..count];
            for (to, bounds) in to.iter_mut().zip(segments.windows(2)).filter(|_| seen > 0) {
                *to = p[bounds[0].min(seen)..bounds[1].min(seen)].iter().sum::<f32>() / total;
            }
        }
    }
    Ok(())
}

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

fn on_gpu(
    cx: &Cx,
    gpu: &Gpu,
    y: &Tensor,
    x: (&Tensor, &Kv<&Tensor>),
    at: (&[Span], &[usize]),
    h: &Heads,
) -> Result<()> {
    let ((q, kv), (spans, segments)) = (x, at);
    let k = match kv {
        Kv::Split { k, .. } | Kv::Fused(k) => k,
    };
    let mut l = gpu.launch(gpu::choose(&KERNELS, h)?)?;
    let rows = q.shape().rows();
    let list = gpu::work::of_queries(spans, rows, h.causal, l.spec().tile[0]);
    let bounds: Vec<u32> = segments.iter().map(|&s| s.min(i32::MAX as usize) as u32).collect();
    let p = SegmentSums {
        q: l.read(gpu::matrix(q)?),
        k: l.read(gpu::matrix(k)?),
        y: l.write(y.region()?),
        bounds: l.read(cx.table(&bounds)?),
        items: l.read(cx.table(&gpu::work::table(&list))?),
        rows: rows as i32,
        heads: h.heads as i32,
        dim: h.head_dim as i32,
        q_stride: h.width() as i32,
        k_stride: k.shape().cols() as i32,
        segments: segments.len().saturating_sub(1) as i32,
        scale_log2: gpu::scale_log2(h),
        causal: h.causal.into(),
    };
    Ok(l.run([list.len(), h.heads, 1], &p)?)
}
