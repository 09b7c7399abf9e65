//! Backward of attention. As in FlashAttention, it recomputes the softmax tile by tile from the statistics that forward
//! saved.

use std::cell::RefCell;
use std::ops::Range;

use super::{Head, Heads, Kv, Qkv, Scores, SoftmaxStats, Span, blocks, disjoint, head_of, rows_fit, tiles};
use crate::gemm::{Init, Panels, gemm_packed};
use crate::mat::{MatMut, MatRef};
use crate::math::{exp, vectorised};
use crate::par::{self, Pointer};

#[derive(Default)]
struct Scratch {
    scores: Scores,
    /// All queries and the gradients of their outputs, also packed as GEMM panels, one block after another.
    q: Head,
    dout: Head,
    packed: Vec<[Panels; 2]>,
    /// One tile of kᵀ, vᵀ and k, packed.
    k_t: Panels,
    v_t: Panels,
    k: Panels,
    /// dp, later ds, in the layout of the scores.
    ds: Vec<f32>,
    /// Σ dout·out for each query.
    delta: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The inputs of backward besides q, k and v: the results of forward, and the gradient of `out`.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// The output of forward.
    pub out: &'a [f32],
    /// The softmax statistics of forward (maximum and sum), [heads, rows].
    pub softmax_stats: &'a [SoftmaxStats],
    /// The gradient of the output.
    pub dout: &'a [f32],
}

/// Gradients of q, k and v; 0 in rows outside all spans. `dq` is [rows, heads·head_dim], contiguous.
///
/// With p = e^(scale·q·kᵀ − max) / sum, recomputed one tile at a time, and Δ = Σ dout·out: dv = pᵀ·dout, ds =
/// p∘(dout·vᵀ − Δ), dq = scale·ds·k, dk = scale·dsᵀ·q.
///
/// # Panics
/// When two spans share queries or keys, or a span or a slice length does not fit its matrix.
pub fn backward(dq: &mut [f32], dkv: Kv<MatMut<'_>>, x: Qkv<'_>, y: Output<'_>, spans: &[Span], h: &Heads) {
    let width = h.width();
    let rows = dq.len() / width.max(1);
    assert!(disjoint(spans.iter().map(|s| s.q.clone())), "spans share queries");
    assert!(disjoint(spans.iter().map(|s| s.k.clone())), "spans share keys");
    assert!(
        rows.checked_mul(h.heads) == Some(y.softmax_stats.len()) && spans.iter().all(|s| s.q.end <= rows),
        "spans do not fit the rows"
    );
    x.check(spans, width);
    dq.fill(0.0);
    let fits = |m: &MatMut<'_>, width: usize| {
        spans.iter().all(|s| rows_fit(&s.k, m.row_stride, width, m.data.len()))
    };
    let zeroed = |m: MatMut<'_>| {
        m.data.fill(0.0);
        (Pointer(m.data.as_mut_ptr()), m.row_stride)
    };
    let ((dk, k_stride), (dv, v_stride)) = match dkv {
        Kv::Split { k, v } => {
            assert!(fits(&k, width) && fits(&v, width), "spans do not fit the gradients of the keys");
            (zeroed(k), zeroed(v))
        }
        Kv::Fused(kv) => {
            assert!(fits(&kv, width.saturating_mul(2)), "spans do not fit the gradients of the keys");
            let (all, stride) = zeroed(kv);
            ((all, stride), (all.at(width), stride))
        }
    };
    if width == 0 {
        return;
    }
    let dq = Pointer(dq.as_mut_ptr());
    let work = spans.iter().map(|s| s.q.len() * s.k.len() * width * 5).sum();
    par::each(spans.len() * h.heads, work, |i| {
        let (span, head) = (&spans[i / h.heads], i % h.heads);
        if span.q.is_empty() || span.k.is_empty() {
            return;
        }
        SCRATCH.with_borrow_mut(|s| {
            let softmax_stats = &y.softmax_stats[head * rows..][span.q.clone()];
            backward_head(s, x, (y, softmax_stats), span, head, h, |s, ks| {
                // SAFETY: only this task writes these keys of this head, and they are within bounds by the assertions
                // above.
                unsafe {
                    write_rows(&s.dk, dk.at(head * h.head_dim), k_stride, ks.clone(), h.head_dim);
                    write_rows(&s.dv, dv.at(head * h.head_dim), v_stride, ks, h.head_dim);
                }
            });
            // SAFETY: the same holds for these queries.
            unsafe { write_rows(&s.dq, dq.at(head * h.head_dim), width, span.q.clone(), h.head_dim) };
        });
    });
}

/// Backward of one span and head. Calls `write` with the gradients of the keys and values of each tile, and leaves the
/// gradients of the queries in `s.dq`.
#[inline(always)]
fn backward_head(
    s: &mut Scratch,
    x: Qkv<'_>,
    (y, softmax_stats): (Output<'_>, &[SoftmaxStats]),
    span: &Span,
    head: usize,
    h: &Heads,
    write: impl Fn(&Scratch, Range<usize>),
) {
    let (lq, lk, d) = (span.q.len(), span.k.len(), h.head_dim);
    let dout = MatRef::f32(y.dout, y.dout.len() / h.width(), h.width());
    let from = span.q.start * h.width() + head * d;
    s.delta.resize(lq, 0.0);
    row_dots(&mut s.delta, &y.out[from..], &y.dout[from..], h.width(), d);
    resize_zeroed(&mut s.dq, lq * d);
    s.q.load(x.q, span.q.clone(), head, h);
    s.dout.load(dout, span.q.clone(), head, h);
    let all: Vec<_> = blocks(0..lq).collect();
    s.packed.resize_with(s.packed.len().max(all.len()), Default::default);
    for ([q, dout], qs) in s.packed.iter_mut().zip(&all) {
        q.pack(s.q.mat(qs.clone(), h));
        dout.pack(s.dout.mat(qs.clone(), h));
    }
    for ks in tiles(0..lk, h) {
        let (k0, n) = (ks.start, ks.len());
        let ks = span.k.start + ks.start..span.k.start + ks.end;
        let (k, v) = (head_of(x.k, ks.clone(), head, h), head_of(x.v, ks.clone(), head, h));
        s.k_t.pack(k.t());
        s.v_t.pack(v.t());
        s.k.pack(k);
        resize_zeroed(&mut s.dk, n * d);
        resize_zeroed(&mut s.dv, n * d);
        let visible = |i| h.visible(span, i).saturating_sub(k0);
        for (qs, [q_panels, dout_panels]) in
            all.iter().zip(&s.packed).filter(|(qs, _)| visible(qs.end - 1) > 0)
        {
            let m = qs.len();
            s.scores.compute(s.q.mat(qs.clone(), h), (&s.k_t, n), h.scale, |i| visible(qs.start + i));
            let stride = s.scores.stride;
            s.ds.resize(m * stride, 0.0);
            gemm_packed(&mut s.ds, stride, Init::Zero, 1.0, s.dout.mat(qs.clone(), h), &s.v_t);
            let p = &mut s.scores.p[..m * stride];
            softmax_backward(p, &mut s.ds, stride, &softmax_stats[qs.clone()], &s.delta[qs.clone()]);
            let (p, ds) = (
                MatRef::f32(p, m, n).with_row_stride(stride),
                MatRef::f32(&s.ds, m, n).with_row_stride(stride),
            );
            gemm_packed(&mut s.dv, d, Init::Accumulate, 1.0, p.t(), dout_panels);
            gemm_packed(&mut s.dk, d, Init::Accumulate, h.scale, ds.t(), q_panels);
            gemm_packed(&mut s.dq[qs.start * d..], d, Init::Accumulate, h.scale, ds, &s.k);
        }
        write(s, ks);
    }
}

vectorised! {
    /// `delta[i]` = Σ out·dout over the d columns of row i, accumulated sequentially, in the order of the GEMM. If a
    /// query attends to a single key, out is the value of that key, and dp - delta is exactly 0 only if both sums round
    /// in the same way.
    fn row_dots(delta: &mut [f32], out: &[f32], dout: &[f32], stride: usize, d: usize) {
        for (i, delta) in delta.iter_mut().enumerate() {
            let (out, dout) = (&out[i * stride..][..d], &dout[i * stride..][..d]);
            *delta = out.iter().zip(dout).fold(0.0, |sum, (o, g)| g.mul_add(*o, sum));
        }
    }

    /// Turns scores into p = e^(score − max) / sum, and dp into ds = p·(dp − Δ), in place.
    fn softmax_backward(p: &mut [f32], ds: &mut [f32], stride: usize, softmax_stats: &[SoftmaxStats], delta: &[f32]) {
        let rows = p.chunks_exact_mut(stride).zip(ds.chunks_exact_mut(stride));
        for ((p, ds), ([max, sum], delta)) in rows.zip(softmax_stats.iter().zip(delta)) {
            for (p, ds) in p.iter_mut().zip(ds) {
                *p = exp(*p - max) / sum;
                *ds = *p * (*ds - delta);
            }
        }
    }
}

#[inline(always)]
fn resize_zeroed(x: &mut Vec<f32>, len: usize) {
    x.clear();
    x.resize(len, 0.0);
}

/// Writes the rows of `from`, which have `cols` columns, to `rows` of `to`.
///
/// # Safety
/// `to` must contain the rows, and nobody else may access these columns of them.
#[inline(always)]
unsafe fn write_rows(from: &[f32], to: Pointer, stride: usize, rows: Range<usize>, cols: usize) {
    for (i, from) in rows.zip(from.chunks_exact(cols)) {
        // SAFETY: guaranteed by the caller.
        unsafe { std::slice::from_raw_parts_mut(to.at(i * stride).0, cols) }.copy_from_slice(from);
    }
}
