//! LoRA on the emulator against its formula.
#![cfg(feature = "emulator")]

mod common;
#[path = "common/emulated.rs"]
mod emulated;

use std::ops::Range;

use common::{linear as affine, param};
use emulated::place;
use half::bf16;
use pheye_cpu::philox::{philox4x32_10, uniform, words};
use pheye_ops::lora::{self, Adapter, Dropout, LoraLinear, Route, RowRange};
use pheye_ops::{Cx, Error};
use pheye_testkit::Rule;
use pheye_testkit::gpu::{assert_rule, bf16_values, download, on_all_orders, orders, upload_bf16};

#[derive(Clone)]
struct Case {
    m: usize,
    k: usize,
    n: usize,
    /// Rank and s of each adapter.
    adapters: Vec<(usize, f32)>,
    ranges: Vec<(Range<usize>, usize)>,
    dropout: Option<Dropout>,
    /// Whether W, A, B are trained.
    trained: [bool; 3],
}

const MODULE: u32 = 5;
const START: f32 = 0.25;

struct Values {
    x: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
    dy: Vec<f32>,
    a_b: Vec<[Vec<f32>; 2]>,
}

/// a b of [m, k] and [k, n], each entry by a function, in f64.
fn multiply(
    [m, n, k]: [usize; 3],
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let entry = |i| (0..k).map(|l| a(i / n, l) * b(l, i % n)).sum();
    (0..m * n).map(entry).collect()
}

impl Case {
    fn route(&self) -> Route {
        let ranges = self.ranges.iter().cloned().map(|(rows, i)| RowRange { rows, adapter: Some(i) });
        Route { ranges: ranges.collect(), dropout: self.dropout }
    }

    fn values(&self) -> Values {
        let Case { m, k, n, .. } = *self;
        let adapter = |(i, &(r, _)): (usize, &(usize, f32))| {
            [(r * k, 10), (n * r, 20)].map(|(len, s)| bf16_values(len, s + i as u64))
        };
        Values {
            x: bf16_values(m * k, 1),
            w: bf16_values(n * k, 2),
            b: bf16_values(n, 3),
            dy: bf16_values(m * n, 4),
            a_b: self.adapters.iter().enumerate().map(adapter).collect(),
        }
    }

    fn factor(&self, i: usize) -> f64 {
        let Some(Dropout { p, seed, stream }) = self.dropout else { return 1.0 };
        let [low, high] = words(stream);
        let word = philox4x32_10([(i / 4) as u32, MODULE, low, high], words(seed))[i % 4];
        if uniform(word) >= p { f64::from(1.0 / (1.0 - p)) } else { 0.0 }
    }

    /// y, dx, dW, db, then dA and dB of each adapter; what the unfused form stores goes through `round`.
    fn formula(&self, v: &Values, round: impl Fn(f64) -> f64 + Copy) -> Vec<Vec<f64>> {
        let Case { m, k, n, .. } = *self;
        let get = |x: &[f32], i: usize| f64::from(x[i]);
        let dropped: Vec<f64> = (0..m * k).map(|i| round(get(&v.x, i) * self.factor(i))).collect();
        let xw = multiply([m, n, k], |i, l| get(&v.x, i * k + l), |l, j| get(&v.w, j * k + l));
        let mut y: Vec<f64> = xw.iter().enumerate().map(|(i, y)| round(y + get(&v.b, i % n))).collect();
        let dyw = multiply([m, k, n], |i, l| get(&v.dy, i * n + l), |l, j| get(&v.w, l * k + j));
        let mut dx: Vec<f64> = dyw.into_iter().map(round).collect();
        let dw = multiply([n, k, m], |i, l| get(&v.dy, l * n + i), |l, j| get(&v.x, l * k + j));
        let db = multiply([1, n, m], |_, _| 1.0, |l, j| get(&v.dy, l * n + j));
        let mut grads: Vec<Vec<f64>> =
            self.adapters.iter().flat_map(|&(r, _)| [vec![0.0; r * k], vec![0.0; n * r]]).collect();
        for (rows, i) in &self.ranges {
            let ((r, s), [a, b], m0) = (self.adapters[*i], &v.a_b[*i], rows.start);
            let (m, s) = (rows.len(), f64::from(s));
            let low = multiply([m, r, k], |i, l| dropped[(m0 + i) * k + l], |l, j| get(a, j * k + l));
            let low: Vec<f64> = low.into_iter().map(round).collect();
            let up = multiply([m, n, r], |i, l| low[i * r + l], |l, j| get(b, j * r + l));
            for (i, up) in up.into_iter().enumerate() {
                let y = &mut y[m0 * n + i];
                *y = round(*y + round(s * round(up)));
            }
            let scaled = |i: usize, j: usize| round(s * get(&v.dy, (m0 + i) * n + j));
            let dlow = multiply([m, r, n], scaled, |l, j| get(b, l * r + j));
            let dlow: Vec<f64> = dlow.into_iter().map(round).collect();
            let back = multiply([m, k, r], |i, l| dlow[i * r + l], |l, j| get(a, l * k + j));
            for (i, back) in back.into_iter().enumerate() {
                let at = m0 * k + i;
                dx[at] = round(dx[at] + round(round(back) * self.factor(at)));
            }
            let da = multiply([r, k, m], |i, l| dlow[l * r + i], |l, j| dropped[(m0 + l) * k + j]);
            let db = multiply([n, r, m], |i, l| scaled(l, i), |l, j| low[l * r + j]);
            for (sum, part) in [(2 * i, da), (2 * i + 1, db)] {
                grads[sum].iter_mut().zip(part).for_each(|(s, p)| *s += p);
            }
        }
        let start = f64::from(START);
        let gradients = [dw, db].into_iter().chain(grads);
        let gradients = gradients.map(|g| g.into_iter().map(|x| x + start).collect());
        [y, dx].into_iter().chain(gradients).collect()
    }

    fn layer(&self, v: &Values) -> LoraLinear {
        let Case { k, n, .. } = *self;
        let adapters = self.adapters.iter().zip(&v.a_b).map(|(&(r, scale), [a, b])| {
            Some(Adapter { a: param("A", [r, k], a), b: param("B", [n, r], b), scale })
        });
        LoraLinear { base: affine(n, k, &v.w, Some(&v.b)), adapters: adapters.collect(), module: MODULE }
    }

    fn check(&self) {
        let (v, route) = (self.values(), self.route());
        let truth = self.formula(&v, |x| x);
        let naive = self.formula(&v, |x| bf16::from_f64(x).to_f64());
        let [w, a, b] = self.trained;
        let out = on_all_orders(|device| {
            let cx = &Cx::new(device.clone());
            let mut p = self.layer(&v);
            let is_trained = |name: &str| {
                (w && (name == "weight" || name == "bias")) || (a && name == "A") || (b && name == "B")
            };
            let mut grads = place(device, p.params_mut(), |p| is_trained(&p.name), START);
            let x = upload_bf16(device, [self.m, self.k], &v.x);
            let dy = upload_bf16(device, [self.m, self.n], &v.dy);
            let (y, saved) = lora::forward(cx, &x, &p, &route).unwrap();
            let dx = lora::backward(cx, &saved, &dy, &p, &route, Some(&mut grads)).unwrap();
            let mut out = vec![download(&y), download(&dx)];
            out.extend(p.params().map(|p| grads.view(p).unwrap().as_ref().map_or(Vec::new(), download)));
            grads.clear().unwrap();
            lora::backward_params(cx, &saved, &dy, &p, &route, Some(&mut grads)).unwrap();
            for (p, first) in p.params().zip(&out[2..]) {
                let again = grads.view(p).unwrap().as_ref().map_or(Vec::new(), download);
                let added =
                    again.iter().zip(first).all(|(a, b)| (a + START - b).abs() <= 1e-5 * (1.0 + b.abs()));
                assert!(added, "{}: without dx as with it", p.name);
            }
            out
        });
        let names = ["y", "dx", "dW", "db", "dA", "dB"];
        for (i, (out, truth)) in out.iter().zip(&truth).enumerate() {
            let name = names[if i < 4 { i } else { 4 + i % 2 }];
            let name = format!("{name} of {} x {} x {}", self.m, self.k, self.n);
            let naive: Vec<f32> = naive[i].iter().map(|&x| x as f32).collect();
            let rule = if i == 0 { Rule::OUTPUT } else { Rule::GRADIENT };
            if !out.is_empty() {
                assert_rule(out, truth, &naive, rule, &name);
            }
        }
    }
}

const DROPOUT: Option<Dropout> = Some(Dropout { p: 0.25, seed: 77, stream: 1 << 40 | 3 });

fn case(m: usize, k: usize, n: usize, ranks: &[usize]) -> Case {
    let adapters: Vec<_> = ranks.iter().enumerate().map(|(i, &r)| (r, 2.0 - 0.75 * i as f32)).collect();
    let count = ranks.len();
    // The first row takes no adapter.
    let cut = |i: usize| (1 + (m - 1) * i / count).min(m);
    let ranges = (0..count).map(|i| (cut(i)..cut(i + 1), i)).collect();
    Case { m, k, n, adapters, ranges, dropout: None, trained: [false, true, true] }
}

#[test]
fn one_adapter() {
    case(37, 40, 48, &[16]).check();
    case(1, 8, 8, &[8]).check();
    Case { dropout: DROPOUT, ..case(37, 40, 48, &[16]) }.check();
}

#[test]
fn two_adapters_and_dropout() {
    Case { dropout: DROPOUT, ..case(50, 72, 88, &[8, 16]) }.check();
    Case { trained: [true; 3], dropout: DROPOUT, ..case(40, 64, 32, &[3, 4]) }.check();
}

#[test]
fn sizes_that_nothing_divides() {
    for k in [13, 28, 31] {
        Case { dropout: DROPOUT, ..case(35, k, 19, &[5, 2]) }.check();
    }
    case(3, 3, 5, &[1]).check();
}

#[test]
fn large_tiles() {
    Case { dropout: DROPOUT, ..case(260, 136, 144, &[8, 16]) }.check();
}

#[test]
fn high_ranks_and_many_adapters() {
    Case { dropout: DROPOUT, ..case(33, 48, 40, &[40]) }.check();
    case(45, 24, 40, &[4, 8, 1, 8, 16]).check();
}

#[test]
fn an_adapter_of_two_ranges_and_none() {
    let mut twice = case(41, 48, 24, &[8, 8]);
    twice.ranges = vec![(0..10, 1), (10..10, 0), (13..20, 0), (30..41, 1)];
    twice.check();
    Case { trained: [false, true, false], ..twice.clone() }.check();
    Case { trained: [false, false, true], ..twice.clone() }.check();
    Case { ranges: vec![], trained: [true, true, true], ..twice }.check();
}

#[test]
fn a_gradient_of_other_rows_is_an_error() {
    let case = case(6, 16, 8, &[8]);
    let [device, ..] = orders();
    let (v, cx) = (case.values(), Cx::new(device.clone()));
    let mut p = case.layer(&v);
    let mut grads = place(&device, p.params_mut(), |p| p.name != "weight", 0.0);
    let (_, saved) = lora::forward(&cx, &upload_bf16(&device, [6, 16], &v.x), &p, &case.route()).unwrap();
    let dy = upload_bf16(&device, [7, 8], &bf16_values(56, 9));
    let fault = lora::backward(&cx, &saved, &dy, &p, &case.route(), Some(&mut grads)).unwrap_err();
    assert!(matches!(fault, Error::Shapes { op: "lora", .. }), "{fault}");
}
