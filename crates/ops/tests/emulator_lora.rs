//! LoRA on the emulator against its formula.
#![cfg(feature = "emulator")]

mod common;
#[path = "common/emulated.rs"]
mod emulated;
#[path = "common/lora_formula.rs"]
mod lora_formula;

use common::param;
use emulated::place;
use half::bf16;
use lora_formula::{Case, DROPOUT, START};
use pheye_ops::gelu::{self, Gelu};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::{BackwardEpilogue, Epilogue};
use pheye_ops::lora::{self, Dropout};
use pheye_ops::{Cx, Error};
use pheye_testkit::gpu::{assert_rule, bf16_values, download, on_all_orders, orders, upload_bf16};
use pheye_testkit::plain::gelu_quick;
use pheye_testkit::{Draw, Rule, cases};

/// y and all gradients in all orders, each near the truth.
fn check(case: &Case) {
    let (v, route) = (case.values(), case.route());
    let truth = case.formula(&v, |x| x);
    let naive = case.formula(&v, |x| bf16::from_f64(x).to_f64());
    let [w, a, b] = case.trained;
    let out = on_all_orders(|device| {
        let cx = &Cx::new(device.clone());
        let mut p = case.layer(&v);
        let is_trained = |name: &str| {
            (w && (name == "weight" || name == "bias")) || (a && name == "A") || (b && name == "B")
        };
        let mut grads = place(device, p.params_mut(), |p| is_trained(&p.name), START);
        let x = upload_bf16(device, [case.m, case.k], &v.x);
        let dy = upload_bf16(device, [case.m, case.n], &v.dy);
        let (y, saved) = lora::forward(cx, &x, &p, &route).unwrap();
        let dx = lora::backward(cx, &saved, &dy, &p, &route, Some(&mut grads)).unwrap();
        let mut out = vec![download(&y), download(&dx)];
        out.extend(p.params().map(|p| grads.view(p).unwrap().as_ref().map_or(Vec::new(), download)));
        grads.clear().unwrap();
        lora::backward_params(cx, &saved, &dy, &p, &route, Some(&mut grads)).unwrap();
        for (p, first) in p.params().zip(&out[2..]) {
            let again = grads.view(p).unwrap().as_ref().map_or(Vec::new(), download);
            let added = again.iter().zip(first).all(|(a, b)| (a + START - b).abs() <= 1e-5 * (1.0 + b.abs()));
            assert!(added, "{}: without dx as with it", p.name);
        }
        out
    });
    let names = ["y", "dx", "dW", "db", "dA", "dB"];
    for (i, (out, truth)) in out.iter().zip(&truth).enumerate() {
        let name = names[if i < 4 { i } else { 4 + i % 2 }];
        let name = format!("{name} of {} x {} x {}", case.m, case.k, case.n);
        let naive: Vec<f32> = naive[i].iter().map(|&x| x as f32).collect();
        let rule = if i == 0 { Rule::OUTPUT } else { Rule::GRADIENT };
        if !out.is_empty() {
            assert_rule(out, truth, &naive, rule, &name);
        }
    }
}

#[test]
fn one_adapter() {
    check(&Case::of(37, 40, 48, &[16]));
    check(&Case::of(1, 8, 8, &[8]));
    check(&Case { dropout: DROPOUT, ..Case::of(37, 40, 48, &[16]) });
}

#[test]
fn two_adapters_and_dropout() {
    check(&Case { dropout: DROPOUT, ..Case::of(50, 72, 88, &[8, 16]) });
    check(&Case { trained: [true; 3], dropout: DROPOUT, ..Case::of(40, 64, 32, &[3, 4]) });
}

#[test]
fn sizes_that_nothing_divides() {
    for k in [13, 28, 31] {
        check(&Case { dropout: DROPOUT, ..Case::of(35, k, 19, &[5, 2]) });
    }
    check(&Case::of(3, 3, 5, &[1]));
}

#[test]
fn large_tiles() {
    check(&Case { dropout: DROPOUT, ..Case::of(260, 136, 144, &[8, 16]) });
}

#[test]
fn high_ranks_and_many_adapters() {
    check(&Case { dropout: DROPOUT, ..Case::of(33, 48, 40, &[40]) });
    check(&Case::of(45, 24, 40, &[4, 8, 1, 8, 16]));
}

#[test]
fn an_adapter_of_two_ranges_and_none() {
    let mut twice = Case::of(41, 48, 24, &[8, 8]);
    twice.ranges = vec![(0..10, 1), (10..10, 0), (13..20, 0), (30..41, 1)];
    check(&twice);
    check(&Case { trained: [false, true, false], ..twice.clone() });
    check(&Case { trained: [false, false, true], ..twice.clone() });
    check(&Case { ranges: vec![], trained: [true, true, true], ..twice });
}

/// Some adapters, each for some ranges of rows or for none, with rows between that take none.
fn random(draw: &mut Draw) -> Case {
    let [m, k, n] = [150, 150, 150].map(|most| draw.size(most));
    let ranks: Vec<usize> =
        (0..1 + draw.below(3)).map(|_| draw.pick(&[1, 3, 8, 8, 16, 16, 24, 40])).collect();
    let mut case = Case::of(m, k, n, &ranks);
    case.ranges.clear();
    let mut row = 0;
    while row < m && case.ranges.len() < 5 {
        let from = row + draw.below(4) * draw.below(2);
        row = from + draw.size(m);
        case.ranges.push((from.min(m)..row.min(m), draw.below(ranks.len())));
    }
    case.dropout = if draw.coin() { DROPOUT } else { None };
    case.trained = [draw.below(4) == 0, draw.coin(), draw.coin()];
    case
}

#[test]
fn random_routes() {
    for mut draw in cases(6) {
        check(&random(&mut draw));
        let ranks: Vec<usize> = (0..1 + draw.below(2)).map(|_| draw.pick(&[2, 8, 16])).collect();
        check_shared(&ranks, draw.size(160), if draw.coin() { DROPOUT } else { None }, draw.coin());
    }
}

/// y = gelu(u) + r for the result u of forward, with u kept, and dx of backward times a slope and plus x.
#[test]
fn what_surrounds_it_in_one_launch() {
    let case = Case { dropout: DROPOUT, ..Case::of(40, 24, 56, &[8, 16]) };
    let Case { m, k, n, .. } = case;
    let (v, r, t) = (case.values(), bf16_values(m * n, 50), bf16_values(m * k, 51));
    let kind = Gelu::Quick;
    let out = on_all_orders(|device| {
        let cx = &Cx::new(device.clone());
        let (mut p, route) = (case.layer(&v), case.route());
        let _ = place(device, p.params_mut(), |_| false, 0.0);
        let (x, dy) = (upload_bf16(device, [m, k], &v.x), upload_bf16(device, [m, n], &v.dy));
        let (r, t) = (upload_bf16(device, [m, n], &r), upload_bf16(device, [m, k], &t));
        let after = Epilogue { gelu: Some(kind), residual: Some(&r), keep: true };
        let (y, saved, u) = lora::forward_with(cx, &x, &p, &route, after).unwrap();
        let (_, t) = gelu::forward(cx, &t, kind).unwrap();
        let before = BackwardEpilogue { gelu: Some((&t, kind)), sum: Some(&x) };
        let dx = lora::backward_with(cx, &saved, &dy, &p, &route, before, None).unwrap();
        let ones = upload_bf16(device, [m, n], &vec![1.0; m * n]);
        vec![download(&y), download(&gelu::backward(cx, &u.unwrap(), &ones, kind).unwrap()), download(&dx)]
    });
    let slope = |x: f64| (gelu_quick(x + 1e-5) - gelu_quick(x - 1e-5)) / 2e-5;
    let formula = |round: fn(f64) -> f64| {
        let all = case.formula(&v, round);
        let y = all[0].iter().zip(&r).map(|(&u, &r)| round(round(gelu_quick(u)) + f64::from(r)));
        let du = all[0].iter().map(|&u| round(slope(u)));
        let times = all[1].iter().zip(&t).map(|(dx, &t)| round(dx * slope(t.into())));
        let dx = times.zip(&v.x).map(|(dx, &x)| round(dx + f64::from(x)));
        [y.collect::<Vec<f64>>(), du.collect(), dx.collect()]
    };
    let (truth, naive) = (formula(|x| x), formula(|x| bf16::from_f64(x).to_f64()));
    for (i, name) in ["y", "slope of u", "dx"].into_iter().enumerate() {
        let naive: Vec<f32> = naive[i].iter().map(|&x| x as f32).collect();
        let rule = if i == 0 { Rule::OUTPUT } else { Rule::GRADIENT };
        assert_rule(&out[i], &truth[i], &naive, rule, name);
    }
}

/// Linears of one x whose low-rank sides come of one pass over x, or of the LayerNorm that makes x: each as if alone.
fn check_shared(ranks: &[usize], k: usize, dropout: Option<Dropout>, norm: bool) {
    let cases = [136, 40, 72].map(|n| Case { dropout, ..Case::of(37, k, n, ranks) });
    let m = cases[0].m;
    let x = bf16_values(m * k, 60);
    let out = on_all_orders(|device| {
        let cx = &Cx::new(device.clone());
        let route = cases[0].route();
        let values = cases.each_ref().map(Case::values);
        let mut layers = [0, 1, 2].map(|i| cases[i].layer(&values[i]));
        let params = layers.iter_mut().flat_map(|l| l.params_mut()).collect();
        let mut grads = place(device, params, |p| p.name == "A" || p.name == "B", START);
        let x = upload_bf16(device, [m, k], &x);
        let ps = layers.each_ref();
        let (y, downs) = match norm {
            true => {
                let mut norm = LayerNorm {
                    weight: param("w", [k], &bf16_values(k, 61)),
                    bias: param("b", [k], &bf16_values(k, 62)),
                    eps: 1e-5,
                };
                let _ = place(device, norm.params_mut(), |_| false, 0.0);
                let normed = lora::norm_down(cx, &x, &norm, ps, &route).unwrap();
                let (y, _) = layernorm::forward(cx, &x, &norm).unwrap();
                assert_eq!(download(&normed.y), download(&y));
                (normed.y, normed.downs)
            }
            false => (x.clone(), lora::down(cx, &x, ps, &route).unwrap()),
        };
        let mut out = vec![download(&y)];
        let mut downs = downs.into_iter();
        let each = ps.map(|p| (p, downs.next().unwrap(), Epilogue::default()));
        let outputs = lora::forward_several(cx, &y, each, &route).unwrap();
        for ((p, (u, saved, _)), v) in ps.into_iter().zip(outputs).zip(&values) {
            let dy = upload_bf16(device, u.shape(), &v.dy);
            let dx = lora::backward(cx, &saved, &dy, p, &route, Some(&mut grads)).unwrap();
            out.extend([download(&u), download(&dx)]);
            let adapters = p.adapters.iter().flatten().flat_map(|a| [&a.a, &a.b]);
            out.extend(adapters.map(|p| download(&grads.view(p).unwrap().unwrap())));
        }
        out
    });
    let mut at = 1;
    for case in &cases {
        let mut v = case.values();
        v.x = out[0].clone();
        let [truth, naive] = [(|x| x) as fn(f64) -> f64, |x| bf16::from_f64(x).to_f64()].map(|round| {
            let mut all = case.formula(&v, round);
            all.drain(2..4);
            all
        });
        for (i, (truth, naive)) in truth.iter().zip(&naive).enumerate() {
            let naive: Vec<f32> = naive.iter().map(|&x| x as f32).collect();
            let rule = if i == 0 { Rule::OUTPUT } else { Rule::GRADIENT };
            assert_rule(&out[at], truth, &naive, rule, &format!("result {i} of {k} x {}", case.n));
            at += 1;
        }
    }
    assert_eq!(at, out.len());
}

#[test]
fn linears_that_take_the_same_x() {
    check_shared(&[8, 16], 40, None, false);
    check_shared(&[8, 3], 40, DROPOUT, false);
    check_shared(&[5], 13, None, false);
}

#[test]
fn linears_behind_a_layernorm() {
    check_shared(&[16], 72, None, true);
    check_shared(&[8, 16], 40, None, true);
    check_shared(&[8], 40, DROPOUT, true);
    check_shared(&[4], 21, None, true);
}

#[test]
fn a_gradient_of_other_rows_is_an_error() {
    let case = Case::of(6, 16, 8, &[8]);
    let [device, ..] = orders();
    let (v, cx) = (case.values(), Cx::new(device.clone()));
    let mut p = case.layer(&v);
    let mut grads = place(&device, p.params_mut(), |p| p.name != "weight", 0.0);
    let (_, saved) = lora::forward(&cx, &upload_bf16(&device, [6, 16], &v.x), &p, &case.route()).unwrap();
    let dy = upload_bf16(&device, [7, 8], &bf16_values(56, 9));
    let fault = lora::backward(&cx, &saved, &dy, &p, &case.route(), Some(&mut grads)).unwrap_err();
    assert!(matches!(fault, Error::Shapes { op: "lora", .. }), "{fault}");
}
