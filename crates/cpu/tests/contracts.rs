//! Inconsistent sizes make the safe functions panic with a message, also if the product of sizes overflows.
#![allow(unsafe_code)]
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use half::bf16;
use pheye_cpu::attention::{Heads, Kv, Output, Qkv, SoftmaxStats, Span, backward, forward};
use pheye_cpu::gemm::{Init, gemm};
use pheye_cpu::mat::{MatMut, MatRef};

/// The message that `f` panics with.
#[track_caller]
fn message(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it ran");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}

#[track_caller]
fn stops(says: &str, f: impl FnOnce()) {
    let message = message(f);
    assert!(message.contains(says), "`{message}` should say `{says}`");
}

const HEADS: Heads = Heads { heads: 1, head_dim: 8, scale: 1.0, causal: false };

fn span(q: usize, k: usize) -> [Span; 1] {
    [Span { q: 0..q, k: 0..k }]
}

/// A matrix with 8 columns and the maximum number of rows, so that only its slice limits the spans.
fn rows_of_8(x: &[f32], row_stride: usize) -> MatRef<'_> {
    MatRef::f32(x, usize::MAX, 8).with_row_stride(row_stride)
}

/// Attention of 16 queries in `rows` of `x` with these spans and heads; `stride` is the row stride of the keys.
fn forward_of(spans: &[Span], h: Heads, stride: usize, softmax_stats: usize) {
    let x = vec![0.5f32; 16 * 8];
    let (q, k) = (rows_of_8(&x, 8), rows_of_8(&x, stride));
    let (mut out, mut softmax_stats) = (vec![0.0; 16 * 8], vec![SoftmaxStats::default(); softmax_stats]);
    forward(&mut out, &mut softmax_stats, Qkv { q, k, v: k }, spans, &h);
}

/// The backward of attention, with a row stride of `to_stride` for the gradients of keys and values.
fn backward_of(spans: &[Span], h: Heads, stride: usize, to_stride: usize, fused: bool) {
    let (x, softmax_stats) = (vec![0.5f32; 16 * 8], vec![[4.0, 9.0]; 16]);
    let (q, k) = (rows_of_8(&x, 8), rows_of_8(&x, stride));
    let (mut dq, mut dk, mut dv) = (vec![0.0; 16 * 8], vec![0.0; 16 * 8], vec![0.0; 16 * 8]);
    let to = |data| MatMut { data, row_stride: to_stride };
    let dkv = if fused { Kv::Fused(to(&mut dk)) } else { Kv::Split { k: to(&mut dk), v: to(&mut dv) } };
    let y = Output { out: &x, softmax_stats: &softmax_stats, dout: &x };
    backward(&mut dq, dkv, Qkv { q, k, v: k }, y, spans, &h);
}

#[test]
fn spans_fit_queries_keys_and_values() {
    // Few queries and many take different code paths.
    for q in [1, 9] {
        forward_of(&span(q, 16), HEADS, 8, 16);
        let keys = "spans do not fit the keys and values";
        stops(keys, || forward_of(&span(q, 17), HEADS, 8, 16));
        // (9 - 1)·2^61 wraps to 0 in 64 bits.
        stops(keys, || forward_of(&span(q, 9), HEADS, 1 << 61, 16));
        // Overlapping rows (stride 0), so many that the memory for their tasks is 2^64 bytes.
        stops(keys, || forward_of(&span(q, 1 << 62), HEADS, 0, 16));
        stops(keys, || forward_of(&span(q, usize::MAX), HEADS, 8, 16));
    }
    stops("spans do not fit the rows", || forward_of(&span(17, 16), HEADS, 8, 16));
    stops("spans do not fit the rows", || forward_of(&span(9, 16), HEADS, 8, 15));
    let x = vec![0.5f32; 8];
    let short = rows_of_8(&x, 8);
    let (mut out, mut softmax_stats) = (vec![0.0; 16], [SoftmaxStats::default(); 2]);
    let mut run = |q: MatRef<'_>, k: MatRef<'_>| {
        forward(&mut out, &mut softmax_stats, Qkv { q, k, v: k }, &span(2, 1), &HEADS);
    };
    stops("spans do not fit the queries", || run(short, short));
    let x = vec![0.5f32; 16];
    let long = MatRef::f32(&x, 2, 8);
    run(long, long);
    for odd in [MatRef::f32(&x, 1, 8), MatRef::f32(&x, 2, 7).with_row_stride(8)] {
        stops("spans do not fit the queries", || run(odd, long));
    }
    let (scales, int8) = (vec![1.0; 2], vec![1; 16]);
    for odd in [MatRef::f32(&x, 8, 2).t(), MatRef::int8(&int8, &scales, 2, 8)] {
        stops("rows of f32 or bf16", || run(long, odd));
    }
}

#[test]
fn heads_are_counted() {
    // 2^62·4 columns wrap to 0 in 64 bits, and so do 16·2^62 softmaxes.
    let many = Heads { heads: 1 << 62, head_dim: 4, ..HEADS };
    stops("do not fit any matrix", || forward_of(&span(16, 16), many, 8, 0));
    let without_columns = Heads { heads: 1 << 62, head_dim: 0, ..HEADS };
    stops("spans do not fit the rows", || forward_of(&span(16, 16), without_columns, 8, 0));
    forward_of(&span(16, 16), Heads { heads: 0, head_dim: 8, ..HEADS }, 8, 0);
}

#[test]
fn gradients_fit_their_matrices() {
    backward_of(&span(9, 9), HEADS, 8, 8, false);
    backward_of(&span(8, 8), HEADS, 8, 16, true);
    let keys = "spans do not fit the gradients of the keys";
    // As above: the row stride of the output would be 2^63 bytes.
    stops(keys, || backward_of(&span(9, 9), HEADS, 8, 1 << 61, false));
    stops(keys, || backward_of(&span(9, 9), HEADS, 8, 7, false));
    stops(keys, || backward_of(&span(9, 9), HEADS, 8, 16, true));
    stops(keys, || backward_of(&span(9, 9), HEADS, 8, 1 << 61, true));
    stops("spans do not fit the keys and values", || backward_of(&span(9, 9), HEADS, 1 << 61, 8, false));
    let many = Heads { heads: 1 << 62, head_dim: 4, ..HEADS };
    stops("do not fit any matrix", || backward_of(&span(9, 9), many, 8, 8, false));
    let shared = [span(9, 9), span(9, 9)].concat();
    stops("spans share queries", || backward_of(&shared, HEADS, 8, 8, false));
}

#[test]
fn matrices_fit_their_slices() {
    let (x, half) = (vec![1.0f32; 64], vec![bf16::ONE; 64]);
    let mut c = vec![0.0f32; 64];
    let mat =
        |rows, cols, row_stride, col_stride| MatRef { row_stride, col_stride, ..MatRef::f32(&x, rows, cols) };
    let mut run = |m, n, c_stride, a: MatRef<'_>, b: MatRef<'_>| {
        assert_eq!((a.rows, b.cols), (m, n));
        message(|| gemm(&mut c, c_stride, Init::Zero, 1.0, a, b))
    };
    let whole = mat(8, 8, 8, 1);
    for odd in [mat(9, 8, 1 << 61, 1), mat(8, 8, 1, 1 << 62), mat(9, 8, 8, 1), mat(2, 8, usize::MAX, 1)] {
        let said = run(odd.rows, 8, 8, odd, whole);
        assert!(said.contains("does not fit its slice"), "{said}");
    }
    let b = MatRef { row_stride: 1 << 61, ..MatRef::bf16(&half, 8, 8) };
    assert!(run(8, 8, 8, whole, b).contains("does not fit its slice"));
    for c_stride in [1 << 61, 7, 9, usize::MAX] {
        assert!(run(8, 8, c_stride, whole, whole).contains("does not fit its slice"), "{c_stride}");
    }
    assert!(run(8, 8, 8, whole, mat(9, 8, 0, 1)).contains("rows of B"));
}
