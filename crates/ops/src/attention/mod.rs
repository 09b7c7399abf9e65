//! Multi-head attention for varlen batches (`cu_seqlens`): o = softmax(scale·q kᵀ) v for each span and head.
//!
//! q [rows, heads·head_dim], o like q. A span gives the rows of a sequence's queries and keys. Spans describe batches,
//! padding (rows in no span), a key-value cache (fewer queries than keys) and cross-attention.
//!
//! Saves q, k, v, o and the statistics of each softmax: on the CPU its maximum and denominator, [heads, rows, 2], on a
//! GPU its log-sum-exp, [heads, rows]. Backward recomputes the scores.
//!
//! As in FlashAttention (arXiv 2205.14135), only tiles of the score matrix exist. Forward takes 4·lq·lk·heads·head_dim
//! FLOPs, backward 10·lq·lk·heads·head_dim; q, k, v and o are accessed once, except that each block of queries reads
//! the keys and values again.

use pheye_cpu::attention::disjoint;
pub use pheye_cpu::attention::{Heads, Kv, Span};
use pheye_tensor::{Device, Shape, Tensor};

use crate::{Cx, Error, Result};

mod cache;
mod cpu;
mod gpu;
mod layout;
mod segments;

pub use cache::Cache;
pub use layout::Layout;
pub use segments::segment_sums;

/// Values that the backward of attention needs.
#[derive(Debug)]
pub struct Saved {
    q: Tensor,
    kv: Kv<Tensor>,
    out: Tensor,
    softmax_stats: Tensor,
}

/// FLOPs of forward, in total for all spans; half of them with a causal mask.
pub fn flops(spans: &[Span], heads: &Heads) -> u64 {
    let pairs: u64 = spans.iter().map(|s| s.q.len() as u64 * s.k.len() as u64).sum();
    let all = 4 * pairs * heads.width() as u64;
    if heads.causal { all / 2 } else { all }
}

/// Checks that q, the keys and values, and the spans are consistent.
fn check(q: Shape, kv: Kv<Shape>, spans: &[Span], heads: &Heads) -> Result<()> {
    let shapes = |left_name, left, right_name, right| {
        Err(Error::Shapes { op: "attention", left_name, left, right_name, right })
    };
    let range =
        |what, value: String, allowed: String| Err(Error::Range { op: "attention", what, value, allowed });
    let width = heads.width();
    if q.cols() != width || width == 0 {
        return range(
            "columns of q",
            q.cols().to_string(),
            format!("{} heads of {}", heads.heads, heads.head_dim),
        );
    }
    let keys = match kv {
        Kv::Split { k, v } if k.rows() != v.rows() => return shapes("k", k, "v", v),
        Kv::Split { k, .. } if k.cols() < width => return shapes("k", k, "q", q),
        Kv::Split { v, .. } if v.cols() < width => return shapes("v", v, "q", q),
        Kv::Fused(kv) if kv.cols() != 2 * width => return shapes("kv", kv, "q", q),
        Kv::Split { k, .. } => k.rows(),
        Kv::Fused(kv) => kv.rows(),
    };
    for (what, rows, of) in [
        ("span of queries", q.rows(), (|s: &Span| s.q.clone()) as fn(&Span) -> _),
        ("span of keys", keys, |s| s.k.clone()),
    ] {
        if let Some(r) = spans.iter().map(of).find(|r| r.start > r.end || r.end > rows) {
            return range(what, format!("{r:?}"), format!("0..{rows}"));
        }
    }
    Ok(())
}

/// Checks that no two spans share a row of the kind that `of` selects.
fn check_disjoint(
    what: &'static str,
    spans: &[Span],
    of: impl Fn(&Span) -> std::ops::Range<usize>,
) -> Result<()> {
    if disjoint(spans.iter().map(of)) {
        return Ok(());
    }
    Err(Error::Range {
        op: "attention",
        what,
        value: "shared by two spans".to_owned(),
        allowed: "one span".to_owned(),
    })
}

/// o, with the shape of q. Rows outside all spans and rows of queries without a key are 0. Spans may share keys.
///
/// ```
/// use pheye_ops::attention::{self, Heads, Kv, Span};
/// use pheye_ops::{Cx, tensor::Tensor};
///
/// // Two sequences packed without padding, of one and of two tokens; one head of 8 elements.
/// let heads = Heads { heads: 1, head_dim: 8, scale: 0.35, causal: true };
/// let spans = [Span { q: 0..1, k: 0..1 }, Span { q: 1..3, k: 1..3 }];
/// let x = Tensor::from_f32([3, 8], &[0.5; 24])?;
/// let (o, saved) = attention::forward(&Cx::cpu(), &x, Kv::Split { k: &x, v: &x }, &spans, &heads)?;
/// let (dq, _dkv) = attention::backward(&Cx::cpu(), &saved, &o, &spans, &heads)?;
/// assert_eq!(dq.shape(), x.shape());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Shapes`] when q, k and v are inconsistent; [`Error::Range`] when q does not have heads·head_dim columns, a
/// span exceeds its matrix, two spans share queries, or a GPU does not support the head size or the scale.
pub fn forward(
    cx: &Cx,
    q: &Tensor,
    kv: Kv<&Tensor>,
    spans: &[Span],
    heads: &Heads,
) -> Result<(Tensor, Saved)> {
    check(q.shape(), kv.map(Tensor::shape), spans, heads)?;
    check_disjoint("a query", spans, |s| s.q.clone())?;
    let (out, softmax_stats) = match &cx.device {
        Device::Cpu => cpu::forward(cx, q, kv, spans, heads)?,
        Device::Gpu(gpu) => gpu::forward(cx, gpu, q, &kv, spans, heads)?,
    };
    let saved = Saved { q: q.clone(), kv: kv.map(Tensor::clone), out: out.clone(), softmax_stats };
    Ok((out, saved))
}

/// dq with the shape of q, and dk and dv in the layout of k and v. Rows and columns outside the attention are 0.
///
/// # Errors
/// The errors of [`forward`], [`Error::Shapes`] when dout and q differ in shape, and [`Error::Range`] when two spans
/// share keys.
pub fn backward(
    cx: &Cx,
    saved: &Saved,
    dout: &Tensor,
    spans: &[Span],
    heads: &Heads,
) -> Result<(Tensor, Kv<Tensor>)> {
    let q = &saved.q;
    check(q.shape(), borrowed(&saved.kv).map(Tensor::shape), spans, heads)?;
    check_disjoint("a query", spans, |s| s.q.clone())?;
    check_disjoint("a key", spans, |s| s.k.clone())?;
    if dout.shape().rows() != q.shape().rows() || dout.shape().cols() != q.shape().cols() {
        let (left, right) = (dout.shape(), q.shape());
        return Err(Error::Shapes { op: "attention", left_name: "dout", left, right_name: "q", right });
    }
    match &cx.device {
        Device::Cpu => cpu::backward(cx, saved, dout, spans, heads),
        Device::Gpu(gpu) => gpu::backward(cx, gpu, saved, dout, spans, heads),
    }
}

fn borrowed(kv: &Kv<Tensor>) -> Kv<&Tensor> {
    match kv {
        Kv::Split { k, v } => Kv::Split { k, v },
        Kv::Fused(kv) => Kv::Fused(kv),
    }
}
