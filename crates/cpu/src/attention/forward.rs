//! Forward of attention with an online softmax: parallel over blocks of queries and heads, or over keys if there are
//! few queries.

use std::cell::RefCell;
use std::ops::Range;

use super::{
    Head, Heads, LANES, NO_KEYS, QUERIES, Qkv, Scores, SoftmaxStats, Span, blocks, decode, disjoint, head_of,
    tiles,
};
use crate::gemm::{Init, Panels, gemm_packed};
use crate::mat::MatRef;
use crate::math::{exp, vectorised};
use crate::par::{self, Pointer};

#[derive(Default)]
struct Scratch {
    scores: Scores,
    /// All queries of the task, then one packed tile of kᵀ and of v.
    q: Head,
    k: Panels,
    v: Panels,
    /// Σ p·v for each query, [queries, head_dim].
    out: Vec<f32>,
    /// The running maximum and Σ p of each query.
    max: Vec<f32>,
    sum: Vec<f32>,
}

/// Minimum number of tasks to aim for, enough for a large machine.
const TASKS: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// out = softmax(scale·q·kᵀ)·v for each span and head; 0 in rows outside all spans. `softmax_stats` [heads, rows]
/// receives the softmax statistics (maximum and sum), from which backward recomputes the softmax.
///
/// # Panics
/// When two spans share queries, or a span or a slice length does not fit its matrix.
pub fn forward(out: &mut [f32], softmax_stats: &mut [SoftmaxStats], x: Qkv<'_>, spans: &[Span], h: &Heads) {
    assert!(disjoint(spans.iter().map(|s| s.q.clone())), "spans share queries");
    let (rows, width) = (out.len() / h.width().max(1), h.width());
    assert!(
        rows.checked_mul(h.heads) == Some(softmax_stats.len()) && spans.iter().all(|s| s.q.end <= rows),
        "spans do not fit the rows"
    );
    x.check(spans, width);
    out.fill(0.0);
    softmax_stats.fill(NO_KEYS);
    if width == 0 {
        return;
    }
    spans
        .iter()
        .filter(|s| decode::applies(s, &x))
        .for_each(|span| decode::forward(out, softmax_stats, x, span, h));
    let many: Vec<_> = spans.iter().filter(|s| !decode::applies(s, &x)).collect();
    // Each task packs the keys and values for its own queries, so there should be few tasks with many queries each.
    let parts_per_span = TASKS.div_ceil((many.len() * h.heads).max(1));
    let parts: Vec<_> = many
        .iter()
        .flat_map(|s| {
            let size = s.q.len().div_ceil(parts_per_span).next_multiple_of(QUERIES);
            s.q.clone().step_by(size.max(1)).map(move |i| (s, i..s.q.end.min(i + size)))
        })
        .collect();
    let work = parts.iter().map(|(s, q)| q.len() * s.k.len() * width * 2).sum();
    let (out, softmax_stats) =
        (Pointer(out.as_mut_ptr()), Pointer(softmax_stats.as_flattened_mut().as_mut_ptr()));
    par::each(parts.len() * h.heads, work, |i| {
        let ((span, qs), head) = (&parts[i / h.heads], i % h.heads);
        SCRATCH.with_borrow_mut(|s| {
            forward_head(s, x, span, qs.clone(), head, h);
            normalize(&mut s.out, &s.sum, h.head_dim);
            for (at, i) in qs.clone().enumerate().filter(|(at, _)| s.sum[*at] != 0.0) {
                // SAFETY: by the assertions above, only this task writes query i of this head.
                unsafe {
                    let to =
                        std::slice::from_raw_parts_mut(out.at(i * width + head * h.head_dim).0, h.head_dim);
                    to.copy_from_slice(&s.out[at * h.head_dim..][..h.head_dim]);
                    *softmax_stats.at(2 * (head * rows + i)).0.cast::<SoftmaxStats>() =
                        [s.max[at], s.sum[at]];
                }
            }
        });
    });
}

/// Computes queries `qs` of one span and head.
#[inline(always)]
fn forward_head(s: &mut Scratch, x: Qkv<'_>, span: &Span, qs: Range<usize>, head: usize, h: &Heads) {
    let (m, d, first) = (qs.len(), h.head_dim, qs.start - span.q.start);
    s.out.clear();
    s.out.resize(m * d, 0.0);
    s.max.clear();
    s.max.resize(m, f32::NEG_INFINITY);
    s.sum.clear();
    s.sum.resize(m, 0.0);
    s.q.load(x.q, qs, head, h);
    let visible = |i| h.visible(span, first + i);
    for ks in tiles(0..visible(m - 1), h) {
        let (k0, n) = (ks.start, ks.len());
        let ks = span.k.start + ks.start..span.k.start + ks.end;
        s.k.pack(head_of(x.k, ks.clone(), head, h).t());
        s.v.pack(head_of(x.v, ks, head, h));
        for qs in blocks(0..m).filter(|qs| visible(qs.end - 1) > k0) {
            let init = if k0 == 0 { Init::Zero } else { Init::Accumulate };
            let q = s.q.mat(qs.clone(), h);
            s.scores.compute(q, (&s.k, n), h.scale, |i| visible(qs.start + i).saturating_sub(k0));
            let stride = s.scores.stride;
            let p = &mut s.scores.p[..qs.len() * stride];
            let out = &mut s.out[qs.start * d..qs.end * d];
            let (max, sum) = (&mut s.max[qs.clone()], &mut s.sum[qs.clone()]);
            softmax(p, stride, max, sum, out, if k0 == 0 { 0 } else { d });
            let p = MatRef::f32(p, qs.len(), n).with_row_stride(stride);
            gemm_packed(out, d, init, 1.0, p, &s.v);
        }
    }
}

vectorised! {
    /// Divides Σ p·v by Σ p.
    fn normalize(out: &mut [f32], sum: &[f32], d: usize) {
        for (o, sum) in out.chunks_exact_mut(d).zip(sum) {
            o.iter_mut().for_each(|o| *o /= sum);
        }
    }

    /// Turns scores into e^(score − max) with each row's new maximum, and rescales the sums and the d columns of out by
    /// the change of the maximum. d is 0 for the first tile, where out has nothing to rescale.
    fn softmax(p: &mut [f32], stride: usize, max: &mut [f32], sum: &mut [f32], out: &mut [f32], d: usize) {
        for (i, row) in p.chunks_exact_mut(stride).enumerate() {
            // The maximum may ignore a NaN, but the sum does not.
            let new = reduce(row, max[i], |a, b| if a > b { a } else { b });
            // A row without a visible key so far: e^(−∞ − 0) = 0, whereas −∞ − −∞ would be NaN.
            let base = if new == f32::NEG_INFINITY { 0.0 } else { new };
            row.iter_mut().for_each(|x| *x = exp(*x - base));
            let total = reduce(row, 0.0, |a, b| a + b);
            if d == 0 {
                sum[i] = total;
            } else {
                let rescale = exp(max[i] - base);
                sum[i] = sum[i] * rescale + total;
                out[i * d..(i + 1) * d].iter_mut().for_each(|o| *o *= rescale);
            }
            max[i] = new;
        }
    }
}

/// Reduces a row, padded to full lanes, first within each lane and then across the lanes.
#[inline(always)]
fn reduce(row: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    for x in row.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            lanes[l] = f(lanes[l], x[l]);
        }
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for l in 0..width {
            lanes[l] = f(lanes[l], lanes[l + width]);
        }
    }
    lanes[0]
}
