//! Attention against its formula: full, causal with a cache, padded, cross, empty.

mod common;

use std::ops::Range;

use common::{same_on_any_threads, sum, tensor, values};
use pheye_ops::attention::{self, Heads, Kv, Span};
use pheye_ops::{Cx, Error};
use pheye_tensor::Tensor;
use pheye_testkit::{Formula, Ran, Real, Report, gradcheck, reports, uniform};
use proptest::prelude::*;

/// q, k, v, each [rows, heads·head_dim].
struct Softmax<'a> {
    spans: &'a [Span],
    heads: Heads,
}

impl Formula for Softmax<'_> {
    fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
        let (h, width) = (self.heads, self.heads.width());
        let mut y = vec![T::of(0.0); x[0].len()];
        for Span { q, k } in self.spans {
            for (i, head) in q.clone().flat_map(|i| (0..h.heads).map(move |head| (i, head))) {
                let cols = head * h.head_dim..(head + 1) * h.head_dim;
                let seen =
                    if h.causal { (k.len() + i - q.start + 1).saturating_sub(q.len()) } else { k.len() };
                let keys = k.start..k.start + seen;
                let dot = |j: usize| sum(cols.clone().map(|c| x[0][i * width + c] * x[1][j * width + c]));
                let scores: Vec<T> = keys.clone().map(|j| dot(j) * T::of(h.scale as f64)).collect();
                let top = scores.iter().map(|s| s.value()).fold(f64::NEG_INFINITY, f64::max);
                let p: Vec<T> = scores.iter().map(|&s| (s - T::of(top)).exp()).collect();
                let total = sum(p.iter().copied());
                for c in cols {
                    if seen > 0 {
                        y[i * width + c] =
                            sum(keys.clone().zip(&p).map(|(j, &p)| p * x[2][j * width + c])) / total;
                    }
                }
            }
        }
        y
    }
}

fn span(q: Range<usize>, k: Range<usize>) -> Span {
    Span { q, k }
}

fn heads(heads: usize, head_dim: usize, causal: bool) -> Heads {
    Heads { heads, head_dim, scale: (head_dim as f32).sqrt().recip(), causal }
}

/// [k, v] side by side, or k and v.
fn keys_values(k: &[f32], v: &[f32], width: usize, fused: bool) -> Kv<Tensor> {
    let rows = k.len() / width;
    if fused {
        let kv: Vec<f32> = k.chunks(width).zip(v.chunks(width)).flat_map(|(k, v)| [k, v].concat()).collect();
        Kv::Fused(tensor([rows, 2 * width], &kv))
    } else {
        Kv::Split { k: tensor([rows, width], k), v: tensor([rows, width], v) }
    }
}

fn apart(kv: &Kv<Tensor>, width: usize) -> (Vec<f32>, Vec<f32>) {
    match kv {
        Kv::Split { k, v } => (values(k), values(v)),
        Kv::Fused(kv) => {
            let half = |i| kv.f32().unwrap().chunks(width).skip(i).step_by(2).flatten().copied().collect();
            (half(0), half(1))
        }
    }
}

fn borrow(kv: &Kv<Tensor>) -> Kv<&Tensor> {
    match kv {
        Kv::Split { k, v } => Kv::Split { k, v },
        Kv::Fused(kv) => Kv::Fused(kv),
    }
}

/// Output and gradients of random q [rows, …], k and v [keys, …].
fn run(x: &[Vec<f32>], dy: &[f32], spans: &[Span], h: &Heads, fused: bool) -> [Vec<f32>; 4] {
    let (cx, width) = (Cx::cpu(), h.width());
    let kv = keys_values(&x[1], &x[2], width, fused);
    let rows = x[0].len() / width;
    let (y, saved) = attention::forward(&cx, &tensor([rows, width], &x[0]), borrow(&kv), spans, h).unwrap();
    let (dq, dkv) = attention::backward(&cx, &saved, &tensor([rows, width], dy), spans, h).unwrap();
    let (dk, dv) = apart(&dkv, width);
    [values(&y), values(&dq), dk, dv]
}

/// Scores of a few units: a softmax neither flat nor a single spike.
fn inputs(rows: usize, keys: usize, width: usize) -> [Vec<f32>; 3] {
    let random = |seed, rows, bound: f32| uniform(seed, rows * width, -bound, bound);
    [random(1, rows, 2.0), random(2, keys, 2.0), random(3, keys, 1.0)]
}

fn output_gradient(rows: usize, width: usize) -> Vec<f32> {
    uniform(4, rows * width, -1.0, 1.0)
}

fn check(rows: usize, keys: usize, spans: &[Span], h: Heads) {
    let [q, k, v] = inputs(rows, keys, h.width());
    let inputs = [("q", q), ("k", k), ("v", v)];
    let all = reports("attention", &Softmax { spans, heads: h }, &inputs, |x, dy| {
        let split = run(x, dy, spans, &h, false);
        assert_eq!(run(x, dy, spans, &h, true), split, "fused keys and values");
        let [y, dq, dk, dv] = split;
        Ran { y, grads: vec![("q", dq), ("k", dk), ("v", dv)] }
    });
    all.iter().for_each(Report::check);
}

#[test]
fn full() {
    check(12, 12, &[span(0..5, 0..5), span(5..12, 5..12)], heads(2, 8, false));
}

#[test]
fn causal_with_and_without_cache() {
    check(12, 17, &[span(0..7, 0..7), span(7..12, 8..17)], heads(2, 8, true));
    // More queries than keys: the first see none, and count as 0.
    check(5, 3, &[span(0..5, 0..3)], heads(1, 8, true));
}

#[test]
fn padded_and_cross() {
    check(11, 20, &[span(1..4, 2..9), span(6..7, 9..10), span(8..11, 12..19)], heads(2, 8, false));
    check(3, 3, &[span(1..2, 0..3)], heads(1, 16, false));
}

#[test]
fn empty() {
    // With a single key dq and dk are exactly 0 in the plain formula; the last span tells how large they might have been.
    let spans = [span(0..0, 0..2), span(1..3, 2..2), span(3..4, 2..3), span(4..10, 3..9)];
    check(10, 9, &spans, heads(1, 8, true));
    check(2, 2, &[], heads(1, 8, false));
}

/// Several tiles of keys and blocks of queries: the formula would take too long for all derivatives, so they are compared
/// with those of the queries taken one by one.
#[test]
fn tiles_agree_with_single_queries() {
    for causal in [false, true] {
        let h = heads(2, 24, causal);
        let (n, width) = (300, h.width());
        let (x, dy) = (inputs(n, n, width), output_gradient(n, width));
        let spans = [span(0..n, 0..n)];
        let [y, dq, dk, dv] = run(&x, &dy, &spans, &h, false);
        let [q, k, v] = x.clone();
        let f = Softmax { spans: &spans, heads: h };
        gradcheck("attention", &f, &[("q", q), ("k", k), ("v", v)], |_, _| Ran {
            y: y.clone(),
            grads: vec![],
        });
        let (mut sum_k, mut sum_v) = (vec![0.0; n * width], vec![0.0; n * width]);
        let add = |sum: &mut [f32], more: &[f32]| sum.iter_mut().zip(more).for_each(|(s, m)| *s += m);
        for i in 0..n {
            let one = i * width..(i + 1) * width;
            let keys = if causal { i + 1 } else { n };
            let part = [x[0][one.clone()].to_vec(), x[1].clone(), x[2].clone()];
            let [yi, dqi, dki, dvi] = run(&part, &dy[one.clone()], &[span(0..1, 0..keys)], &h, true);
            let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-6);
            assert!(near(&yi, &y[one.clone()]) && near(&dqi, &dq[one]), "query {i}");
            add(&mut sum_k, &dki);
            add(&mut sum_v, &dvi);
        }
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-5);
        assert!(near(&sum_k, &dk) && near(&sum_v, &dv));
    }
}

#[test]
fn huge_scores_stay_finite() {
    let h = Heads { heads: 1, head_dim: 8, scale: 1e4, causal: false };
    let (x, dy) = (inputs(200, 200, 8), output_gradient(200, 8));
    let all = run(&x, &dy, &[span(0..200, 0..200)], &h, false);
    assert!(all.iter().flatten().all(|x| x.is_finite()));
}

#[test]
fn wide_caches() {
    // A cache whose rows are wider than the heads: only the first columns count, the others get no gradient.
    let (cx, h) = (Cx::cpu(), heads(1, 8, true));
    let (x, dy) = (inputs(2, 5, 8), output_gradient(2, 8));
    let widen = |x: &[f32]| x.chunks(8).flat_map(|r| [r, &[7.0; 3]].concat()).collect::<Vec<_>>();
    let (k, v) = (tensor([5, 11], &widen(&x[1])), tensor([5, 11], &widen(&x[2])));
    let spans = [span(0..2, 0..4)];
    let (y, saved) =
        attention::forward(&cx, &tensor([2, 8], &x[0]), Kv::Split { k: &k, v: &v }, &spans, &h).unwrap();
    let [expected, _, dk, _] = run(&x, &dy, &spans, &h, false);
    assert_eq!(y.f32().unwrap(), expected);
    let (_, dkv) = attention::backward(&cx, &saved, &tensor([2, 8], &dy), &spans, &h).unwrap();
    let Kv::Split { k, .. } = dkv else { panic!("layout of the input") };
    let expected: Vec<f32> = dk.chunks(8).flat_map(|r| [r, &[0.0; 3]].concat()).collect();
    assert_eq!(k.f32().unwrap(), expected);
}

#[test]
fn faults_are_errors() {
    let (cx, h) = (Cx::cpu(), heads(1, 8, false));
    let (q, k) = (tensor([4, 8], &[0.0; 32]), tensor([4, 8], &[0.0; 32]));
    let try_spans = |spans: &[Span]| attention::forward(&cx, &q, Kv::Split { k: &k, v: &k }, spans, &h);
    for bad in [
        &[span(0..5, 0..4)][..],
        &[span(0..4, 2..5)],
        &[span(0..3, 0..2), span(2..4, 2..4)],
        #[allow(clippy::reversed_empty_ranges)]
        &[span(3..2, 0..2)],
    ] {
        assert!(matches!(try_spans(bad), Err(Error::Range { .. })), "{bad:?}");
    }
    let (_, saved) = try_spans(&[span(0..2, 0..3), span(2..4, 1..4)]).expect("queries may share keys");
    let both = [span(0..2, 0..3), span(2..4, 1..4)];
    assert!(matches!(attention::backward(&cx, &saved, &q, &both, &h), Err(Error::Range { .. })));
    let narrow = tensor([4, 7], &[0.0; 28]);
    let fault = attention::forward(&cx, &q, Kv::Split { k: &narrow, v: &k }, &[], &h);
    assert!(matches!(fault, Err(Error::Shapes { .. })));
}

#[test]
fn threads_do_not_show() {
    let h = heads(2, 16, true);
    let (x, dy) = (inputs(333, 333, h.width()), output_gradient(333, h.width()));
    let spans = [span(0..200, 0..200), span(210..333, 200..333)];
    same_on_any_threads(|| run(&x, &dy, &spans, &h, false).to_vec());
}

proptest! {
    #![proptest_config(common::repeatable(24))]

    #[test]
    fn any_lengths(lq in 0usize..7, lk in 0usize..20, more in 0usize..4, eights in 1usize..4, causal: bool) {
        // With a single key dq is exactly 0, and only a second span tells how large it might have been.
        let spans = [span(0..lq, more..more + lk), span(lq + more..2 * lq + more, more + lk..more + 2 * lk + 2)];
        check(2 * lq + more, more + 2 * lk + 2, &spans, heads(1, 8 * eights, causal));
    }
}
