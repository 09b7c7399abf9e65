//! Linear on the emulator against its formula.
#![cfg(feature = "emulator")]

mod common;
#[path = "common/emulated.rs"]
mod emulated;

use common::linear as affine;
use emulated::{place, product};
use pheye_ops::{Cx, linear};
use pheye_testkit::Rule;
use pheye_testkit::gpu::{assert_rule, bf16_values, download, on_all_orders, round_bf16, upload_bf16};

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
}

#[test]
fn cut_along_k() {
    check(40, 512, 48, true, true);
    check(520, 16, 24, true, true);
}
