//! Attention for few queries, as in decoding, where the memory bandwidth for keys and values is the limit. Each task
//! takes a range of keys with all their heads, which is contiguous in memory, and the partial softmaxes are merged at
//! the end (Flash-Decoding, Dao et al., 2023).

use std::cell::Cell;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::{Heads, Qkv, SoftmaxStats, Span};
use crate::element::{Element, LANES8, load8_f32};
use crate::mat::Elements;
use crate::math::exp;
use crate::par::{self, Pointer};

/// The maximum number of queries in a span for which this path is used.
const MAX_QUERIES: usize = 8;
/// Keys per task (the split size).
const KEYS: usize = 64;

thread_local! {
    static PARTS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static SCORES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Whether this path is used for a span.
pub(super) fn applies(span: &Span, x: &Qkv<'_>) -> bool {
    span.q.len() <= MAX_QUERIES && !span.k.is_empty() && matches!(x.q.data, Elements::F32(_))
}

/// The size of a task's partial result: Σ p·v [queries, width], then maxima and sums [queries, heads].
fn part_len(queries: usize, h: &Heads) -> usize {
    queries * (h.width() + 2 * h.heads)
}

/// Writes `out` and `softmax_stats` of the span's queries; both slices cover all rows.
pub(super) fn forward(
    out: &mut [f32],
    softmax_stats: &mut [SoftmaxStats],
    x: Qkv<'_>,
    span: &Span,
    h: &Heads,
) {
    let (m, width, rows) = (span.q.len(), h.width(), softmax_stats.len() / h.heads.max(1));
    let (tasks, size) = (span.k.len().div_ceil(KEYS), part_len(m, h));
    let mut parts = PARTS.take();
    parts.resize(tasks * size, 0.0);
    let all = Pointer(parts.as_mut_ptr());
    let work = 2 * m * span.k.len() * width;
    par::each(tasks, work, |t| {
        let keys = t * KEYS..span.k.len().min((t + 1) * KEYS);
        // SAFETY: each task has its own range.
        let part = unsafe { std::slice::from_raw_parts_mut(all.at(t * size).0, size) };
        let mut scores = SCORES.take();
        Arch::new().dispatch(Task { part, scores: &mut scores, x, span, keys, h });
        SCORES.set(scores);
    });
    for i in 0..m {
        let to = &mut out[(span.q.start + i) * width..][..width];
        for head in 0..h.heads {
            let norm = merge(&mut to[head * h.head_dim..][..h.head_dim], &parts, size, (m, i, head), h);
            softmax_stats[head * rows + span.q.start + i] = norm;
        }
    }
    PARTS.set(parts);
}

/// Merges the partial results of query `i` of `m` for one head.
fn merge(
    to: &mut [f32],
    parts: &[f32],
    size: usize,
    (m, i, head): (usize, usize, usize),
    h: &Heads,
) -> SoftmaxStats {
    let stat = m * h.width() + i * h.heads + head;
    let stats = || parts.chunks_exact(size).map(|p| (p[stat], p[stat + m * h.heads]));
    let max = stats().fold(f32::NEG_INFINITY, |max, (t, _)| if t > max { t } else { max });
    if max == f32::NEG_INFINITY {
        // Either no key is visible, or all scores are NaN, and then the sums are NaN too.
        let nan = stats().any(|(_, sum)| sum.is_nan());
        to.fill(if nan { f32::NAN } else { 0.0 });
        return if nan { [f32::NAN; 2] } else { super::NO_KEYS };
    }
    to.fill(0.0);
    let mut sum = 0.0;
    for (part, (t, s)) in parts.chunks_exact(size).zip(stats()) {
        let rescale = exp(t - max);
        sum += rescale * s;
        let from = &part[i * h.width() + head * h.head_dim..][..h.head_dim];
        to.iter_mut().zip(from).for_each(|(to, from)| *to += rescale * from);
    }
    to.iter_mut().for_each(|to| *to /= sum);
    [max, sum]
}

struct Task<'a> {
    part: &'a mut [f32],
    scores: &'a mut Vec<f32>,
    x: Qkv<'a>,
    span: &'a Span,
    /// Relative to the first key of the span.
    keys: Range<usize>,
    h: &'a Heads,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Task { part, scores, x, span, keys, h } = self;
        let m = span.q.len();
        let Elements::F32(q) = x.q.data else { unreachable!("`applies` asks for queries in f32") };
        let (out, stats) = part.split_at_mut(m * h.width());
        let (maxima, sums) = stats.split_at_mut(m * h.heads);
        out.fill(0.0);
        // Scores [head, key], one query at a time: for all but the first query the keys are in the cache.
        scores.resize(h.heads * keys.len(), 0.0);
        for i in 0..m {
            let seen = h.visible(span, i).clamp(keys.start, keys.end) - keys.start;
            let q = &q[(span.q.start + i) * x.q.row_stride..][..h.width()];
            let first = span.k.start + keys.start;
            let rows = (first, x.k.row_stride, seen);
            match x.k.data {
                Elements::F32(k) => scores_of::<S, _>(scores, q, k, rows, h),
                Elements::Bf16(k) => scores_of::<S, _>(scores, q, k, rows, h),
                Elements::Int8(..) => unreachable!("attention takes no int8"),
            }
            let stride = keys.len();
            for (head, row) in scores.chunks_exact_mut(stride).enumerate() {
                let (row, unseen) = row.split_at_mut(seen);
                unseen.fill(0.0);
                // The maximum may ignore a NaN, but the sum does not.
                let max = row.iter().fold(f32::NEG_INFINITY, |m, &s| if s > m { s } else { m });
                let base = if max == f32::NEG_INFINITY { 0.0 } else { max };
                // Loops instead of closures, here and below: a closure that is not inlined is compiled
                // without the wide instructions.
                for s in row.iter_mut() {
                    *s = exp(*s - base);
                }
                maxima[i * h.heads + head] = max;
                sums[i * h.heads + head] = row.iter().sum();
            }
            let out = &mut out[i * h.width()..][..h.width()];
            let rows = (first, x.v.row_stride, seen);
            match x.v.data {
                Elements::F32(v) => add_weighted::<S, _>(out, scores, v, rows, stride, h),
                Elements::Bf16(v) => add_weighted::<S, _>(out, scores, v, rows, stride, h),
                Elements::Int8(..) => unreachable!("attention takes no int8"),
            }
        }
    }
}

/// scores[head, key] = scale·q·k for the `count` rows from `first` on.
#[inline(always)]
fn scores_of<S: Simd, E: Element>(
    scores: &mut [f32],
    q: &[f32],
    k: &[E],
    (first, stride, count): (usize, usize, usize),
    h: &Heads,
) {
    let (d, to_stride) = (h.head_dim, scores.len() / h.heads.max(1));
    for at in 0..count {
        let k = &k[(first + at) * stride..][..h.width()];
        for (head, (q, k)) in q.chunks_exact(d).zip(k.chunks_exact(d)).enumerate() {
            let (qs, q_rest) = q.as_chunks::<LANES8>();
            let (ks, k_rest) = k.as_chunks::<LANES8>();
            let mut sums = [0.0f32; LANES8];
            for (q, k) in qs.iter().zip(ks) {
                let k = load8_f32::<S, E>(k);
                for l in 0..LANES8 {
                    sums[l] = q[l].mul_add(k[l], sums[l]);
                }
            }
            let mut width = LANES8;
            while width > 1 {
                width /= 2;
                for l in 0..width {
                    sums[l] += sums[l + width];
                }
            }
            let mut sum = sums[0];
            for (q, k) in q_rest.iter().zip(k_rest) {
                sum += q * k.widen();
            }
            scores[head * to_stride + at] = h.scale * sum;
        }
    }
}

/// out += Σ p·v over the `count` rows from `first` on, four rows at a time.
#[inline(always)]
fn add_weighted<S: Simd, E: Element>(
    out: &mut [f32],
    p: &[f32],
    v: &[E],
    (first, stride, count): (usize, usize, usize),
    p_stride: usize,
    h: &Heads,
) {
    const ROWS: usize = 4;
    let d = h.head_dim;
    let mut at = 0;
    while at < count {
        let n = ROWS.min(count - at);
        for (head, out) in out.chunks_exact_mut(d).enumerate() {
            // Rows past the end repeat the last row, with weight 0.
            let row = |r: usize| &v[(first + at + r.min(n - 1)) * stride + head * d..][..d];
            let rows = [row(0), row(1), row(2), row(3)];
            let mut weights = [0.0; ROWS];
            weights[..n].copy_from_slice(&p[head * p_stride + at..][..n]);
            let (outs, out_rest) = out.as_chunks_mut::<LANES8>();
            let whole = outs.len() * LANES8;
            for (c, out) in outs.iter_mut().enumerate() {
                for (row, w) in rows.iter().zip(weights) {
                    let Some(x) = row[c * LANES8..].first_chunk::<LANES8>() else { continue };
                    let x = load8_f32::<S, E>(x);
                    for l in 0..LANES8 {
                        out[l] = x[l].mul_add(w, out[l]);
                    }
                }
            }
            for (row, w) in rows.iter().zip(weights) {
                out_rest.iter_mut().zip(&row[whole..]).for_each(|(o, x)| *o += w * x.widen());
            }
        }
        at += n;
    }
}
