//! Attention on every device, compared with its formula: full, causal with a cache, padded, cross, split along keys,
//! empty.

#[path = "common/attention_formula.rs"]
mod attention_formula;
mod common;

use attention_formula::{Case, heads, span};
use common::{same_on_any_threads, tensor, upload};
use pheye_ops::attention::{self, Heads, Kv, Span};
use pheye_ops::{Cx, Error};
use pheye_tensor::{DType, Device};
use pheye_testkit::gpu::download;
use pheye_testkit::{Ran, Report, gradcheck, reports};
use proptest::prelude::*;

fn named(all: Vec<Vec<f32>>) -> Ran {
    let [y, dq, dk, dv] = all.try_into().expect("four results");
    Ran { y, grads: vec![("q", dq), ("k", dk), ("v", dv)] }
}

fn check(rows: usize, keys: usize, spans: &[Span], heads: Heads) {
    let case = Case::of(rows, keys, spans, heads);
    let all = reports("attention", &case, &case.inputs(), |x, dy| {
        let split = case.on_cpu(x, dy);
        let fused = Case { fused: true, ..case.clone() };
        assert_eq!(fused.on_cpu(x, dy), split, "fused keys and values");
        named(split)
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
    // More queries than keys: the first queries attend to no key and give 0.
    check(5, 3, &[span(0..5, 0..3)], heads(1, 8, true));
}

#[test]
fn padded_and_cross() {
    check(11, 20, &[span(1..4, 2..9), span(6..7, 9..10), span(8..11, 12..19)], heads(2, 8, false));
    check(3, 3, &[span(1..2, 0..3)], heads(1, 16, false));
}

#[test]
fn empty() {
    // With a single key, dq and dk are exactly 0 in the plain formula, so the last span provides the scale for the
    // tolerance.
    let spans = [span(0..0, 0..2), span(1..3, 2..2), span(3..4, 2..3), span(4..10, 3..9)];
    check(10, 9, &spans, heads(1, 8, true));
    check(2, 2, &[], heads(1, 8, false));
}

/// Several tiles of keys and blocks of queries. Derivatives of the formula would take too long here, so the results are
/// compared with those of each query alone.
#[test]
fn tiles_agree_with_single_queries() {
    for causal in [false, true] {
        let h = heads(2, 24, causal);
        let (n, width) = (300, h.width());
        let case = Case::of(n, n, &[span(0..n, 0..n)], h);
        let (x, dy) = case.values();
        let [y, dq, dk, dv] = case.on_cpu(&x, &dy).try_into().unwrap();
        gradcheck("attention", &case, &case.inputs(), |_, _| Ran { y: y.clone(), grads: vec![] });
        let (mut sum_k, mut sum_v) = (vec![0.0; n * width], vec![0.0; n * width]);
        let add = |sum: &mut [f32], more: &[f32]| sum.iter_mut().zip(more).for_each(|(s, m)| *s += m);
        for i in 0..n {
            let one = i * width..(i + 1) * width;
            let keys = if causal { i + 1 } else { n };
            let part = [x[0][one.clone()].to_vec(), x[1].clone(), x[2].clone()];
            let query = Case { fused: true, ..Case::of(1, n, &[span(0..1, 0..keys)], h) };
            let [yi, dqi, dki, dvi] = query.on_cpu(&part, &dy[one.clone()]).try_into().unwrap();
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
    let case = Case::of(200, 200, &[span(0..200, 0..200)], h);
    let (x, dy) = case.values();
    assert!(case.on_cpu(&x, &dy).iter().flatten().all(|x| x.is_finite()));
}

/// Keys and values with `more` columns than the heads have, as in a cache: these are not read, and their gradients are
/// 0.
fn wide_keys_and_values(case: &Case, more: usize, device: &Device, dtype: DType) -> Vec<Vec<f32>> {
    let (cx, w, (x, dy)) = (Cx::new(device.clone()), case.heads.width(), case.values());
    let widened = |m: &[f32]| {
        let rows: Vec<f32> = m.chunks(w).flat_map(|row| [row, &vec![f32::NAN; more]].concat()).collect();
        upload(device, dtype, [case.keys, w + more], &rows)
    };
    let [q, dy] = [&x[0], &dy].map(|m| upload(device, dtype, [case.rows, w], m));
    let (k, v) = (widened(&x[1]), widened(&x[2]));
    let (y, saved) =
        attention::forward(&cx, &q, Kv::Split { k: &k, v: &v }, &case.spans, &case.heads).unwrap();
    let (dq, dkv) = attention::backward(&cx, &saved, &dy, &case.spans, &case.heads).unwrap();
    let Kv::Split { k, v } = dkv else { panic!("dk and dv are fused") };
    let wide = [&k, &v].map(download);
    let all = vec![download(&y), download(&dq)];
    assert!(wide.iter().flat_map(|m| m.chunks(w + more)).all(|row| row[w..].iter().all(|&g| g == 0.0)));
    let narrow = wide.map(|m| m.chunks(w + more).flat_map(|row| row[..w].to_vec()).collect());
    let all = [all, narrow.into()].concat();
    let (x, dy) = case.values();
    assert_eq!(all, case.run(device, dtype, &x, &dy));
    all
}

#[test]
fn wide_caches() {
    let case = Case::of(2, 5, &[span(0..2, 0..4)], heads(1, 8, true));
    wide_keys_and_values(&case, 3, &Device::Cpu, DType::F32);
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
    let case = Case::of(333, 333, &[span(0..200, 0..200), span(210..333, 200..333)], heads(2, 16, true));
    let (x, dy) = case.values();
    same_on_any_threads(|| case.on_cpu(&x, &dy));
}

proptest! {
    #![proptest_config(common::repeatable(24))]

    #[test]
    fn any_lengths(lq in 0usize..7, lk in 0usize..20, more in 0usize..4, eights in 1usize..4, causal: bool) {
        // With a single key dq is exactly 0, so the second span provides the scale for the tolerance.
        let spans = [span(0..lq, more..more + lk), span(lq + more..2 * lq + more, more + lk..more + 2 * lk + 4)];
        check(2 * lq + more, more + 2 * lk + 4, &spans, heads(1, 8 * eights, causal));
    }
}

/// The GPU kernels.
#[cfg(feature = "emulator")]
mod gpu {
    use pheye_testkit::gpu::{on_all_orders, orders, upload_bf16};
    use pheye_testkit::{Draw, Expected, Rounded, cases};

    use super::*;

    impl Case {
        fn check_kernels(&self) {
            let (x, dy) = self.narrow();
            let ran = named(on_all_orders(|device| self.run(device, DType::Bf16, &x, &dy)));
            let [q, k, v] = x;
            let inputs = [("q", q), ("k", k), ("v", v)];
            let expected = Expected::of::<Rounded<f64>>(self, &inputs, &["q", "k", "v"], &dy);
            expected.check(&format!("attention of {:?} {:?}", self.heads, self.spans), &ran);
        }
    }

    /// Rows before, between and after spans, one query, more keys than a tile, a span slightly longer than a tile.
    fn padded(head_dim: usize, causal: bool, fused: bool) {
        let spans = vec![span(1..4, 2..9), span(5..6, 9..10), span(6..71, 12..82)];
        Case { rows: 72, keys: 85, spans, heads: heads(2, head_dim, causal), fused }.check_kernels();
    }

    #[test]
    fn every_head_size() {
        for (i, head_dim) in (8..=128).step_by(8).enumerate() {
            let spans = vec![span(0..9, 3..20)];
            let heads = heads(2, head_dim, i % 2 == 0);
            Case { rows: 9, keys: 21, spans, heads, fused: i % 3 == 0 }.check_kernels();
        }
    }

    #[test]
    fn padded_spans() {
        padded(16, false, true);
        padded(24, true, false);
    }

    #[test]
    fn vit_tiles() {
        let spans = vec![span(0..5, 0..5), span(5..70, 5..70)];
        Case { rows: 70, keys: 70, spans, heads: heads(2, 80, false), fused: false }.check_kernels();
    }

    #[test]
    fn causal_with_a_cache_and_with_too_few_keys() {
        let spans = vec![span(0..1, 0..70), span(1..4, 70..72), span(4..74, 72..142)];
        Case { rows: 74, keys: 142, spans, heads: heads(1, 32, true), fused: false }.check_kernels();
    }

    #[test]
    fn many_queries() {
        let spans = vec![span(0..150, 0..70)];
        for head_dim in [32, 64] {
            Case { rows: 150, keys: 70, spans: spans.clone(), heads: heads(1, head_dim, true), fused: true }
                .check_kernels();
        }
        let spans = vec![span(0..520, 0..20)];
        Case { rows: 520, keys: 20, spans, heads: heads(1, 80, false), fused: false }.check_kernels();
    }

    /// Blocks that hold all keys of a span, and in backward all queries, with enough spans and heads to fill the
    /// emulated GPU.
    #[test]
    fn spans_that_fit_shared_memory() {
        let spans =
            vec![span(0..66, 0..67), span(67..72, 67..72), span(73..74, 72..121), span(74..175, 121..222)];
        Case { rows: 176, keys: 223, spans: spans.clone(), heads: heads(1, 80, false), fused: false }
            .check_kernels();
        Case { rows: 176, keys: 223, spans, heads: heads(1, 64, true), fused: true }.check_kernels();
        let spans = vec![span(0..131, 0..272)];
        Case { rows: 131, keys: 272, spans, heads: heads(4, 64, false), fused: true }.check_kernels();
        let spans = vec![span(0..131, 0..77)];
        Case { rows: 131, keys: 77, spans, heads: heads(4, 64, true), fused: false }.check_kernels();
    }

    /// Head size 64 and at most 80 or 128 queries per span: one kernel computes all gradients, also for keys that no
    /// query attends to.
    #[test]
    fn short_spans() {
        let spans = vec![span(1..2, 3..4), span(2..2, 5..9), span(3..36, 10..75), span(36..116, 80..209)];
        for (causal, fused) in [(false, false), (true, true)] {
            Case { rows: 118, keys: 290, spans: spans.clone(), heads: heads(2, 64, causal), fused }
                .check_kernels();
        }
        // More queries than keys under a causal mask; the keys are split.
        let spans = vec![span(0..128, 0..40), span(128..209, 41..700)];
        Case { rows: 209, keys: 720, spans, heads: heads(1, 64, true), fused: false }.check_kernels();
    }

    /// Few queries and many keys: the keys are split.
    #[test]
    fn parts() {
        let spans = vec![span(0..1, 0..300), span(2..4, 310..313)];
        Case { rows: 5, keys: 320, spans, heads: heads(1, 16, false), fused: true }.check_kernels();
        let spans = vec![span(0..66, 0..390)];
        Case { rows: 66, keys: 390, spans, heads: heads(1, 64, true), fused: true }.check_kernels();
    }

    /// Up to four spans of random lengths, with rows and keys between them that are in no span.
    fn random(draw: &mut Draw) -> Case {
        let head_dim = draw.pick(&[8, 32, 48, 64, 64, 64, 80, 80, 128]);
        let length = |draw: &mut Draw, long: usize| match draw.below(4) {
            0 => draw.below(4),
            1 => 16 * draw.below(9),
            2 => 1 + draw.below(40),
            _ => draw.below(long),
        };
        let (mut rows, mut keys) = (0, 0);
        let spans = (0..1 + draw.below(4))
            .map(|_| {
                let (q, k) = (rows + draw.below(3), keys + draw.below(3));
                rows = q + length(draw, 150);
                keys = k + length(draw, 400);
                span(q..rows, k..keys)
            })
            .collect();
        let heads = heads(1 + draw.below(5), head_dim, draw.coin());
        Case { rows: rows + draw.below(3), keys: keys + draw.below(3), spans, heads, fused: draw.coin() }
    }

    #[test]
    fn random_spans() {
        cases(12).for_each(|mut draw| random(&mut draw).check_kernels());
    }

    /// For a query with one key, o is the value of that key, and the gradients of the scores are 0.
    #[test]
    fn one_key_each() {
        let x = heads(2, 40, false);
        let case = Case {
            rows: 3,
            keys: 3,
            spans: (0..3).map(|i| span(i..i + 1, i..i + 1)).collect(),
            heads: x,
            fused: false,
        };
        let (inputs, dy) = case.narrow();
        let ran = on_all_orders(|device| case.run(device, DType::Bf16, &inputs, &dy));
        let [o, dq, dk, dv] = ran.try_into().unwrap();
        assert_eq!(o, inputs[2]);
        assert!(dq.iter().chain(&dk).all(|x| *x == 0.0), "{dq:?} {dk:?}");
        assert_eq!(dv, dy);
    }

    #[test]
    fn nothing_to_do_and_what_kernels_refuse() {
        let [device, ..] = orders();
        Case { rows: 3, keys: 2, spans: vec![], heads: heads(1, 16, true), fused: true }.check_kernels();
        let cx = Cx::new(device.clone());
        let refused = |cols: usize, h: Heads| {
            let q = upload_bf16(&device, [2, cols], &vec![1.0; 2 * cols]);
            let spans = [span(0..2, 0..2)];
            matches!(
                attention::forward(&cx, &q, Kv::Split { k: &q, v: &q }, &spans, &h),
                Err(Error::Range { .. })
            )
        };
        assert!(refused(136, heads(1, 136, false)));
        assert!(refused(12, heads(1, 12, false)));
        assert!(refused(16, Heads { scale: -1.0, ..heads(1, 16, false) }));
        assert!(!refused(16, heads(1, 16, false)));
    }

    #[test]
    fn wide_keys() {
        let case = Case::of(5, 21, &[span(0..5, 1..20)], heads(1, 16, false));
        on_all_orders(|device| wide_keys_and_values(&case, 8, device, DType::Bf16));
    }

    /// Scores in the thousands: one weight is 1 and the others are 0, also if the keys are split.
    #[test]
    fn huge_scores_stay_finite() {
        let spans = vec![span(0..3, 0..300)];
        let case = Case { rows: 3, keys: 300, spans, heads: heads(1, 16, false), fused: true };
        let (mut x, dy) = case.narrow();
        x[0].iter_mut().for_each(|q| *q *= 1024.0);
        let all = case.run(&orders()[0], DType::Bf16, &x, &dy);
        assert!(all.iter().flatten().all(|x| x.is_finite()));
        for o in all[0].chunks(16) {
            assert!(x[2].chunks(16).any(|v| v == o), "{o:?} is no value");
        }
    }

    /// All scores are below -1000: e^(0 - lse) of the padding of a tile of keys would be infinite.
    #[test]
    fn far_negative_scores_stay_finite() {
        for (head_dim, queries) in [(16, 3), (64, 3), (64, 100), (64, 129)] {
            let spans = vec![span(0..queries, 0..70)];
            let case =
                Case { rows: queries, keys: 70, spans, heads: heads(4, head_dim, false), fused: false };
            let (mut x, dy) = case.narrow();
            x[0].iter_mut().for_each(|q| *q = -1024.0 - q.abs());
            x[1].iter_mut().for_each(|k| *k = 1.0 + k.abs());
            let all = case.run(&orders()[0], DType::Bf16, &x, &dy);
            assert!(all.iter().flatten().all(|x| x.is_finite()), "head size {head_dim}, {queries} queries");
        }
    }
}
