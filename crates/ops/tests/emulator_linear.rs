//! Linear on the emulator against its formula.
#![cfg(feature = "emulator")]

mod common;
#[path = "common/emulated.rs"]
mod emulated;

use common::linear as affine;
use emulated::{place, product};
use pheye_ops::gelu::{self, Gelu};
use pheye_ops::linear::{BackwardEpilogue, Epilogue};
use pheye_ops::{Cx, Error, linear};
use pheye_testkit::gpu::{
    assert_rule, bf16_values, download, on_all_orders, orders, round_bf16, upload_bf16,
};
use pheye_testkit::plain::{gelu_exact, gelu_quick, gelu_tanh};
use pheye_testkit::{Rule, cases};

/// y, dx, dW and db of x [m, k] and W [n, k] on all orders, each near the truth.
fn check(m: usize, k: usize, n: usize, trained: bool, bias: bool) {
    let (x, w, b, dy) =
        (bf16_values(m * k, 1), bf16_values(n * k, 2), bf16_values(n, 3), bf16_values(m * n, 4));
    let start = 0.5;
    let out = on_all_orders(|device| {
        let cx = &Cx::new(device.clone());
        let mut p = affine(n, k, &w, bias.then_some(&b));
        let mut grads = place(device, p.params_mut(), |_| trained, start);
        let (x, dy) = (upload_bf16(device, [m, k], &x), upload_bf16(device, [m, n], &dy));
        let (y, saved) = linear::forward(cx, &x, &p).unwrap();
        let dx = linear::backward(cx, &saved, &dy, &p, Some(&mut grads)).unwrap();
        let mut out = vec![download(&y), download(&dx)];
        for p in p.params() {
            out.extend(grads.view(p).unwrap().as_ref().map(download));
        }
        out
    });
    let name = |what| format!("{what} of {m} x {k} x {n}");
    let (y, y64) = product([m, n, k], |i, l| x[i * k + l], |l, j| w[j * k + l]);
    let added = |j: usize| if bias { b[j] } else { 0.0 };
    let mut y: Vec<f32> = y.iter().enumerate().map(|(i, y)| y + added(i % n)).collect();
    round_bf16(&mut y);
    let y64: Vec<f64> = y64.iter().enumerate().map(|(i, y)| y + f64::from(added(i % n))).collect();
    assert_rule(&out[0], &y64, &y, Rule::OUTPUT, &name("y"));
    let (mut dx, dx64) = product([m, k, n], |i, l| dy[i * n + l], |l, j| w[l * k + j]);
    round_bf16(&mut dx);
    assert_rule(&out[1], &dx64, &dx, Rule::GRADIENT, &name("dx"));
    if trained {
        let plus = |(a, b): (Vec<f32>, Vec<f64>)| {
            let a: Vec<f32> = a.into_iter().map(|x| x + start).collect();
            (a, b.into_iter().map(|x| x + f64::from(start)).collect::<Vec<f64>>())
        };
        let (dw, dw64) = plus(product([n, k, m], |i, l| dy[l * n + i], |l, j| x[l * k + j]));
        assert_rule(&out[2], &dw64, &dw, Rule::GRADIENT, &name("dW"));
        if bias {
            let (db, db64) = plus(product([1, n, m], |_, _| 1.0, |l, j| dy[l * n + j]));
            assert_rule(&out[3], &db64, &db, Rule::GRADIENT, &name("db"));
        }
    } else {
        assert_eq!(out.len(), 2, "no gradients of frozen parameters");
    }
}

#[test]
fn small_and_odd() {
    for (m, k, n) in [(1, 1, 1), (3, 5, 7), (33, 40, 24), (65, 9, 66), (2, 588, 3)] {
        check(m, k, n, true, true);
    }
}

#[test]
fn a_few_rows_with_long_weights() {
    for (m, k, n) in [(1, 256, 48), (8, 104, 40), (9, 300, 17), (31, 72, 200)] {
        check(m, k, n, false, true);
    }
}

#[test]
fn more_than_one_tile_of_each_size() {
    check(70, 96, 72, true, true);
    check(260, 40, 264, true, false);
    check(257, 72, 136, false, true);
    check(40, 136, 264, true, false);
}

#[test]
fn cut_along_k() {
    check(40, 512, 48, true, true);
    check(520, 16, 24, true, true);
}

fn activation(kind: Gelu, x: f64) -> f64 {
    match kind {
        Gelu::Exact => gelu_exact(x),
        Gelu::Tanh => gelu_tanh(x),
        Gelu::Quick => gelu_quick(x),
    }
}

/// y = gelu(x W^T + b) + r with u kept, and dx = (dy W) gelu'(v) + r of the linear read the other way.
fn check_fused(m: usize, k: usize, n: usize, kind: Gelu) {
    let (x, w, b, r) =
        (bf16_values(m * k, 1), bf16_values(n * k, 2), bf16_values(n, 3), bf16_values(m * n, 4));
    let v = bf16_values(m * n, 5);
    let w_t: Vec<f32> = (0..k * n).map(|i| w[i % n * k + i / n]).collect();
    let out = on_all_orders(|device| {
        let cx = &Cx::new(device.clone());
        let mut p = affine(n, k, &w, Some(&b));
        let mut back = affine(k, n, &w_t, None);
        let _ = place(device, p.params_mut(), |_| false, 0.0);
        let _ = place(device, back.params_mut(), |_| false, 0.0);
        let (x, r) = (upload_bf16(device, [m, k], &x), upload_bf16(device, [m, n], &r));
        let after = Epilogue { gelu: Some(kind), residual: Some(&r), keep: true };
        let (y, _, u) = linear::forward_with(cx, &x, &p, after).unwrap();
        let u =
            gelu::backward(cx, &u.unwrap(), &upload_bf16(device, [m, n], &vec![1.0; m * n]), kind).unwrap();
        let (again, _, none) = linear::forward_with(cx, &x, &p, Epilogue { keep: false, ..after }).unwrap();
        assert!(none.is_none() && download(&again) == download(&y));
        let (_, v) = gelu::forward(cx, &upload_bf16(device, [m, n], &v), kind).unwrap();
        let (_, saved) = linear::forward(cx, &upload_bf16(device, [m, n], &vec![0.0; m * n]), &back).unwrap();
        let before = BackwardEpilogue { gelu: Some((&v, kind)), sum: Some(&r) };
        let dx = linear::backward_with(cx, &saved, &x, &back, before, None).unwrap();
        vec![download(&y), download(&u), download(&dx)]
    });
    let half = |x: f64| half::bf16::from_f64(x).to_f64();
    let (_, xw) = product([m, n, k], |i, l| x[i * k + l], |l, j| w[j * k + l]);
    let wide = |x: f32| f64::from(x);
    let slope = |x: f64| (activation(kind, x + 1e-5) - activation(kind, x - 1e-5)) / 2e-5;
    let formula = |round: &dyn Fn(f64) -> f64| {
        let each = |f: &dyn Fn(usize) -> f64| -> Vec<f64> { (0..m * n).map(f).collect() };
        let u = each(&|i| round(xw[i] + wide(b[i % n])));
        let y = each(&|i| round(round(activation(kind, u[i])) + wide(r[i])));
        let du = each(&|i| round(slope(u[i])));
        [y, du, each(&|i| round(round(round(xw[i]) * slope(wide(v[i]))) + wide(r[i])))]
    };
    let (truth, naive) = (formula(&|x| x), formula(&half));
    for (i, name) in ["y", "slope of u", "dx"].into_iter().enumerate() {
        let naive: Vec<f32> = naive[i].iter().map(|&x| x as f32).collect();
        let rule = if i == 0 { Rule::OUTPUT } else { Rule::GRADIENT };
        assert_rule(&out[i], &truth[i], &naive, rule, &format!("{name} of {m} x {k} x {n}"));
    }
}

#[test]
fn what_surrounds_a_linear_in_one_launch() {
    check_fused(33, 40, 24, Gelu::Exact);
    check_fused(5, 64, 40, Gelu::Tanh);
    check_fused(21, 9, 13, Gelu::Quick);
    check_fused(200, 24, 260, Gelu::Quick);
    check_fused(40, 256, 48, Gelu::Tanh);
}

#[test]
fn random_sizes() {
    for mut draw in cases(6) {
        let [m, k, n] = [300, 300, 280].map(|most| draw.size(most));
        check(m, k, n, draw.coin(), draw.coin());
        let [m, k, n] = [150, 80, 150].map(|most| draw.size(most));
        check_fused(m, k, n, draw.pick(&[Gelu::Exact, Gelu::Tanh, Gelu::Quick]));
    }
}

#[test]
fn a_residual_of_another_shape_is_an_error() {
    let [device, ..] = orders();
    for cx in [Cx::cpu(), Cx::new(device)] {
        let mut p = affine(3, 2, &[1.0; 6], None);
        let x = common::tensor([4, 2], &[1.0; 8]);
        let r = common::tensor([4, 2], &[1.0; 8]);
        let (x, r) = match cx.device {
            pheye_tensor::Device::Cpu => (x, r),
            ref device => {
                let _ = place(device, p.params_mut(), |_| false, 0.0);
                (upload_bf16(device, [4, 2], &[1.0; 8]), upload_bf16(device, [4, 2], &[1.0; 8]))
            }
        };
        let after = Epilogue { residual: Some(&r), ..Epilogue::default() };
        let fault = linear::forward_with(&cx, &x, &p, after).unwrap_err();
        assert!(matches!(fault, Error::Shapes { op: "linear", left_name: "residual", .. }), "{fault}");
    }
}

/// Linears of one x together: the bits of each alone, in fewer launches where that is what they are for.
#[test]
fn several_of_one_input() {
    let widths = [72, 8, 136, 40];
    let small = [(1, 264), (8, 40), (20, 104), (70, 96), (2, 7), (0, 8)].map(|(m, k)| (m, k, widths));
    for (m, k, widths) in small.into_iter().chain([(520, 40, [72, 80, 136, 72])]) {
        let x = bf16_values(m * k, 1);
        on_all_orders(|device| {
            let cx = &Cx::new(device.clone());
            let x = upload_bf16(device, [m, k], &x);
            let mut layers =
                widths.map(|n| affine(n, k, &bf16_values(n * k, n as u64), Some(&bf16_values(n, 3))));
            let _ = place(device, layers.iter_mut().flat_map(|l| l.params_mut()).collect(), |_| false, 0.0);
            let [a, b, c, d] = layers.each_ref();
            let gelu = Epilogue::gelu(Gelu::Tanh);
            let all = [(a, Epilogue::default()), (b, gelu), (c, Epilogue::default()), (d, gelu)];
            let two = linear::forward_several(cx, &x, [all[0], all[3]]).unwrap();
            let four = linear::forward_several(cx, &x, all).unwrap();
            let mut out = Vec::new();
            let pairs = four.into_iter().zip(all).chain(two.into_iter().zip([all[0], all[3]]));
            for ((y, _, u), (p, after)) in pairs {
                let (alone, _, alone_u) = linear::forward_with(cx, &x, p, after).unwrap();
                assert_eq!(download(&y), download(&alone), "{m} {k} {}", p.n());
                assert_eq!(u.is_some(), alone_u.is_some());
                if let (Some(u), Some(alone)) = (u, alone_u) {
                    let again = |u: gelu::Saved| download(&u.again(cx, Gelu::Tanh).unwrap());
                    assert_eq!(again(u), again(alone));
                }
                out.push(download(&y));
            }
            out
        });
    }
}
