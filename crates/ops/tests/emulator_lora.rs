//! LoRA on the emulator against its formula.
#![cfg(feature = "emulator")]

mod common;
#[path = "common/emulated.rs"]
mod emulated;
#[path = "common/lora_formula.rs"]
mod lora_formula;

use emulated::place;
use half::bf16;
use lora_formula::{Case, DROPOUT, START};
use pheye_ops::lora;
use pheye_ops::{Cx, Error};
use pheye_testkit::Rule;
use pheye_testkit::gpu::{assert_rule, bf16_values, download, on_all_orders, orders, upload_bf16};

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
