//! Attention's kernels on the emulator against the formula in f64, and its error against the plain formula's in bf16.
#![cfg(feature = "emulator")]

use std::ops::Range;

use half::bf16;
use pheye_ops::attention::{self, Heads, Kv, Span};
use pheye_ops::{Cx, Error};
use pheye_tensor::{Device, Tensor};
use pheye_testkit::gpu::{assert_rule, download, on_all_orders, round_bf16, upload_bf16, wide};
use pheye_testkit::{Draw, Rule, cases, uniform};

/// A case: rows of q, rows of k, who sees whom.
struct Case {
    rows: usize,
    keys: usize,
    spans: Vec<Span>,
    heads: Heads,
    fused: bool,
}

fn span(q: Range<usize>, k: Range<usize>) -> Span {
    Span { q, k }
}

fn heads(heads: usize, head_dim: usize, causal: bool) -> Heads {
    Heads { heads, head_dim, scale: (head_dim as f32).sqrt().recip(), causal }
}

impl Case {
    /// q, k, v and the gradient of o. Scores of a few units: a softmax neither flat nor a single spike.
    fn inputs(&self) -> [Vec<f32>; 4] {
        let w = self.heads.width();
        let shapes = [(self.rows, 2.0), (self.keys, 2.0), (self.keys, 1.0), (self.rows, 1.0)];
        std::array::from_fn(|i| {
            let (rows, bound) = shapes[i];
            let mut x = uniform(i as u64 + 1, rows * w, -bound, bound);
            round_bf16(&mut x);
            x
        })
    }

    fn seen(&self, s: &Span, i: usize) -> Range<usize> {
        let last = if self.heads.causal { (s.k.len() + i + 1).saturating_sub(s.q.len()) } else { s.k.len() };
        s.k.start..s.k.start + last.min(s.k.len())
    }

    /// o, dq, dk, dv step by step, each intermediate tensor rounded by `round`: scores, weights, dp, ds and the results.
    fn plain(&self, x: &[Vec<f64>; 4], round: impl Fn(f64) -> f64) -> [Vec<f64>; 4] {
        let [q, k, v, g] = x;
        let (h, w) = (self.heads, self.heads.width());
        let zeros = |rows: usize| vec![0.0; rows * w];
        let mut all = [zeros(self.rows), zeros(self.rows), zeros(self.keys), zeros(self.keys)];
        let [o, dq, dk, dv] = &mut all;
        for (s, head) in self.spans.iter().flat_map(|s| (0..h.heads).map(move |head| (s, head))) {
            let at = |row: usize| row * w + head * h.head_dim..row * w + (head + 1) * h.head_dim;
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            for (i, row) in s.q.clone().enumerate() {
                let seen = self.seen(s, i);
                let scores: Vec<f64> =
                    seen.clone().map(|j| round(dot(&q[at(row)], &k[at(j)]) * f64::from(h.scale))).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                let p: Vec<f64> = scores.iter().map(|s| round((s - top).exp() / total)).collect();
                let dp: Vec<f64> = seen.clone().map(|j| round(dot(&g[at(row)], &v[at(j)]))).collect();
                let delta = dot(&p, &dp);
                for ((j, p), dp) in seen.zip(&p).zip(&dp) {
                    let ds = round(p * (dp - delta)) * f64::from(h.scale);
                    for c in 0..h.head_dim {
                        let (r, j) = (at(row).start + c, at(j).start + c);
                        o[r] += p * v[j];
                        dq[r] += ds * k[j];
                        dk[j] += ds * q[r];
                        dv[j] += p * g[r];
                    }
                }
            }
        }
        all.map(|x| x.into_iter().map(&round).collect())
    }

    fn run(&self, device: &Device, x: &[Vec<f32>; 4]) -> Vec<Vec<f32>> {
        let (cx, w) = (Cx::new(device.clone()), self.heads.width());
        let [q, k, v, g] = x;
        let up = |rows, x: &[f32]| upload_bf16(device, [rows, w], x);
        let both: Vec<f32> = k.chunks(w).zip(v.chunks(w)).flat_map(|(k, v)| [k, v].concat()).collect();
        let kv = match self.fused {
            true => Kv::Fused(upload_bf16(device, [self.keys, 2 * w], &both)),
            false => Kv::Split { k: up(self.keys, k), v: up(self.keys, v) },
        };
        let borrowed = match &kv {
            Kv::Split { k, v } => Kv::Split { k, v },
            Kv::Fused(kv) => Kv::Fused(kv),
        };
        let (q, g) = (up(self.rows, q), up(self.rows, g));
        let (o, saved) = attention::forward(&cx, &q, borrowed, &self.spans, &self.heads).unwrap();
        let (dq, dkv) = attention::backward(&cx, &saved, &g, &self.spans, &self.heads).unwrap();
        let (dk, dv) = match &dkv {
            Kv::Split { k, v } => (download(k), download(v)),
            Kv::Fused(kv) => {
                let kv = download(kv);
                let half = |i| kv.chunks(w).skip(i).step_by(2).flatten().copied().collect();
                (half(0), half(1))
            }
        };
        vec![download(&o), download(&dq), dk, dv]
    }

    fn check(&self) {
        let x = self.inputs();
        let results = on_all_orders(|device| self.run(device, &x));
        let exact = x.each_ref().map(|x| wide(x));
        let truth = self.plain(&exact, |x| x);
        let naive = self.plain(&exact, |x| bf16::from_f64(x).to_f64());
        for (i, name) in ["o", "dq", "dk", "dv"].into_iter().enumerate() {
            let naive: Vec<f32> = naive[i].iter().map(|&x| x as f32).collect();
            let rule = if i == 0 { Rule::OUTPUT } else { Rule::GRADIENT };
            assert_rule(
                &results[i],
                &truth[i],
                &naive,
                rule,
                &format!("{name} of {:?} {:?}", self.heads, self.spans),
            );
        }
    }
}

/// Rows before, between and after spans, one query, more keys than a tile, a span of its own tile and a bit.
fn padded(head_dim: usize, causal: bool, fused: bool) {
    let spans = vec![span(1..4, 2..9), span(5..6, 9..10), span(6..71, 12..82)];
    Case { rows: 72, keys: 85, spans, heads: heads(2, head_dim, causal), fused }.check();
}

#[test]
fn every_head_size() {
    for (i, head_dim) in (8..=128).step_by(8).enumerate() {
        let spans = vec![span(0..9, 3..20)];
        let heads = heads(2, head_dim, i % 2 == 0);
        Case { rows: 9, keys: 21, spans, heads, fused: i % 3 == 0 }.check();
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
    Case { rows: 70, keys: 70, spans, heads: heads(2, 80, false), fused: false }.check();
}

#[test]
fn causal_with_a_cache_and_with_too_few_keys() {
    let spans = vec![span(0..1, 0..70), span(1..4, 70..72), span(4..74, 72..142)];
    Case { rows: 74, keys: 142, spans, heads: heads(1, 32, true), fused: false }.check();
}

#[test]
fn many_queries() {
    let spans = vec![span(0..150, 0..70)];
    for head_dim in [32, 64] {
        Case { rows: 150, keys: 70, spans: spans.clone(), heads: heads(1, head_dim, true), fused: true }
            .check();
    }
    let spans = vec![span(0..520, 0..20)];
    Case { rows: 520, keys: 20, spans, heads: heads(1, 80, false), fused: false }.check();
}

/// Blocks that hold all keys, and in backward all queries, of a span: enough spans and heads to fill the emulated GPU.
#[test]
fn spans_that_fit_shared_memory() {
    let spans =
        vec![span(0..66, 0..67), span(67..72, 67..72), span(73..74, 72..121), span(74..175, 121..222)];
    Case { rows: 176, keys: 223, spans: spans.clone(), heads: heads(1, 80, false), fused: false }.check();
    Case { rows: 176, keys: 223, spans, heads: heads(1, 64, true), fused: true }.check();
    let spans = vec![span(0..131, 0..272)];
    Case { rows: 131, keys: 272, spans, heads: heads(4, 64, false), fused: true }.check();
    let spans = vec![span(0..131, 0..77)];
    Case { rows: 131, keys: 77, spans, heads: heads(4, 64, true), fused: false }.check();
}

/// Head size 64 and at most 80, or 128, queries to a span: all gradients from one kernel, which also owns keys that no query sees.
#[test]
fn short_spans() {
    let spans = vec![span(1..2, 3..4), span(2..2, 5..9), span(3..36, 10..75), span(36..116, 80..209)];
    for (causal, fused) in [(false, false), (true, true)] {
        Case { rows: 118, keys: 290, spans: spans.clone(), heads: heads(2, 64, causal), fused }.check();
    }
    // More queries than keys under a causal mask; the keys cut into parts.
    let spans = vec![span(0..128, 0..40), span(128..209, 41..700)];
    Case { rows: 209, keys: 720, spans, heads: heads(1, 64, true), fused: false }.check();
}

/// Few queries over many keys: the keys are cut into parts.
#[test]
fn parts() {
    let spans = vec![span(0..1, 0..300), span(2..4, 310..313)];
    Case { rows: 5, keys: 320, spans, heads: heads(1, 16, false), fused: true }.check();
    let spans = vec![span(0..66, 0..390)];
    Case { rows: 66, keys: 390, spans, heads: heads(1, 64, true), fused: true }.check();
}

/// Up to four spans of any lengths, with rows and keys between them that are nobody's.
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
    cases(12).for_each(|mut draw| random(&mut draw).check());
}

/// Of a query that sees one key, o is its value and no score matters.
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
    let inputs = case.inputs();
    let [o, dq, dk, dv] = on_all_orders(|device| case.run(device, &inputs)).try_into().unwrap();
    assert_eq!(o, inputs[2]);
    assert!(dq.iter().chain(&dk).all(|x| *x == 0.0), "{dq:?} {dk:?}");
    assert_eq!(dv, inputs[3]);
}

#[test]
fn nothing_to_do_and_what_kernels_refuse() {
    let device: Device = "emulator".parse().unwrap();
    Case { rows: 3, keys: 2, spans: vec![], heads: heads(1, 16, true), fused: true }.check();
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

/// Keys and values with more columns than the heads: those are not read, and their gradients are 0.
#[test]
fn wide_keys_and_values() {
    let spans = vec![span(0..5, 1..20)];
    let case = Case { rows: 5, keys: 21, spans, heads: heads(1, 16, false), fused: false };
    let x = case.inputs();
    let [o, dq, dk, dv] = case.run(&"emulator".parse().unwrap(), &x).try_into().unwrap();
    let wide = on_all_orders(|device| {
        let cx = Cx::new(device.clone());
        let widened = |m: &[f32]| {
            let rows: Vec<f32> = m.chunks(16).flat_map(|row| [row, &[f32::NAN; 8]].concat()).collect();
            upload_bf16(device, [case.keys, 24], &rows)
        };
        let (k, v) = (widened(&x[1]), widened(&x[2]));
        let up = |m: &[f32]| upload_bf16(device, [case.rows, 16], m);
        let kv = Kv::Split { k: &k, v: &v };
        let (o, saved) = attention::forward(&cx, &up(&x[0]), kv, &case.spans, &case.heads).unwrap();
        let (dq, dkv) = attention::backward(&cx, &saved, &up(&x[3]), &case.spans, &case.heads).unwrap();
        let Kv::Split { k, v } = dkv else { panic!("another layout") };
        vec![download(&o), download(&dq), download(&k), download(&v)]
    });
    assert_eq!(wide[..2], [o, dq]);
    for (wide, narrow) in wide[2..].iter().zip([dk, dv]) {
        for (wide, narrow) in wide.chunks(24).zip(narrow.chunks(16)) {
            assert_eq!((&wide[..16], &wide[16..]), (narrow, &[0.0; 8][..]));
        }
    }
}

/// Scores of thousands: one weight is 1 and the others are 0, also where keys are cut.
#[test]
fn huge_scores_stay_finite() {
    let spans = vec![span(0..3, 0..300)];
    let case = Case { rows: 3, keys: 300, spans, heads: heads(1, 16, false), fused: true };
    let mut x = case.inputs();
    x[0].iter_mut().for_each(|q| *q *= 1024.0);
    let all = case.run(&"emulator".parse().unwrap(), &x);
    assert!(all.iter().flatten().all(|x| x.is_finite()));
    for o in all[0].chunks(16) {
        assert!(x[2].chunks(16).any(|v| v == o), "{o:?} is no value");
    }
}

/// Scores below -1000 everywhere: e^(0 - lse) of what pads a tile of keys would be infinite.
#[test]
fn far_negative_scores_stay_finite() {
    for (head_dim, queries) in [(16, 3), (64, 3), (64, 100), (64, 129)] {
        let spans = vec![span(0..queries, 0..70)];
        let case = Case { rows: queries, keys: 70, spans, heads: heads(4, head_dim, false), fused: false };
        let mut x = case.inputs();
        x[0].iter_mut().for_each(|q| *q = -1024.0 - q.abs());
        x[1].iter_mut().for_each(|k| *k = 1.0 + k.abs());
        let all = case.run(&"emulator".parse().unwrap(), &x);
        assert!(all.iter().flatten().all(|x| x.is_finite()), "head size {head_dim}, {queries} queries");
    }
}

/// On the CPU against the formula, on the emulator against what rounding the scores would do.
#[test]
fn segment_sums() {
    let segments = [0, 3, 3, 90, 200];
    let n = segments.len() - 1;
    let sizes = [16, 32, 40, 64, 72, 96, 104, 128];
    for (head_dim, causal) in sizes.into_iter().zip([false, true].into_iter().cycle()) {
        let spans = vec![span(1..4, 0..2), span(4..70, 5..105)];
        let case = Case { rows: 71, keys: 105, spans, heads: heads(2, head_dim, causal), fused: false };
        let (h, w, [q, k, ..]) = (case.heads, case.heads.width(), case.inputs());
        let plain = |round: &dyn Fn(f64) -> f64| {
            let mut y = vec![0.0; h.heads * case.rows * n];
            for (s, head) in case.spans.iter().flat_map(|s| (0..h.heads).map(move |head| (s, head))) {
                for (i, row) in s.q.clone().enumerate() {
                    let element =
                        |m: &[f32], row: usize, c: usize| f64::from(m[row * w + head * h.head_dim + c]);
                    let score =
                        |j| (0..h.head_dim).map(|c| element(&q, row, c) * element(&k, j, c)).sum::<f64>();
                    let weight = |j| round(score(j) * f64::from(h.scale)).exp();
                    let p: Vec<f64> = case.seen(s, i).map(weight).collect();
                    for (j, p) in p.iter().enumerate() {
                        let at = segments.iter().rposition(|&b| b <= j).expect("from 0");
                        y[(head * case.rows + row) * n + at] += p;
                    }
                    let to = &mut y[(head * case.rows + row) * n..][..n];
                    let total: f64 = p.iter().sum();
                    to.iter_mut().filter(|_| total > 0.0).for_each(|y| *y /= total);
                }
            }
            y
        };
        let truth = plain(&|x| x);
        let narrow = |y: Vec<f64>| -> Vec<f32> { y.into_iter().map(|y| y as f32).collect() };
        let run = |cx: &Cx, q: &Tensor, k: &Tensor| {
            let kv = Kv::Split { k, v: k };
            download(&attention::segment_sums(cx, q, kv, &case.spans, &h, &segments).unwrap())
        };
        let host = |rows, x: &[f32]| Tensor::from_f32([rows, w], x).unwrap();
        let on_cpu = run(&Cx::cpu(), &host(case.rows, &q), &host(case.keys, &k));
        assert_rule(&on_cpu, &truth, &narrow(plain(&|x| f64::from(x as f32))), Rule::OUTPUT, "on the CPU");
        let results = on_all_orders(|device| {
            let up = |rows, x: &[f32]| upload_bf16(device, [rows, w], x);
            vec![run(&Cx::new(device.clone()), &up(case.rows, &q), &up(case.keys, &k))]
        });
        let naive = narrow(plain(&|x| bf16::from_f64(x).to_f64()));
        assert_rule(&results[0], &truth, &naive, Rule::OUTPUT, "on the emulator");
    }
    let cx = Cx::cpu();
    let q = Tensor::from_f32([1, 8], &[1.0; 8]).unwrap();
    let kv = Kv::Split { k: &q, v: &q };
    let descending = attention::segment_sums(&cx, &q, kv, &[span(0..1, 0..1)], &heads(1, 8, false), &[2, 1]);
    assert!(matches!(descending, Err(Error::Range { .. })));
}
