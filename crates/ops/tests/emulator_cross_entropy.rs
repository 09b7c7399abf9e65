//! Cross entropy on the emulator: of logits, and through the head, against its formula.
#![cfg(feature = "emulator")]

mod common;
#[path = "common/emulated.rs"]
mod emulated;

use common::linear;
use emulated::{place, product};
use pheye_ops::{Cx, Graphs, cross_entropy};
use pheye_tensor::Device;
use pheye_testkit::gpu::{
    assert_rule, bf16_values, download, on_all_orders, orders, round_bf16, upload_bf16, wide,
};
use pheye_testkit::{Real, Rule, cases, plain};

/// The loss of each row, and softmax - onehot.
fn formula<T: Real>(z: &[T], targets: &[u32]) -> (Vec<T>, Vec<T>) {
    let (mut losses, mut dz) = (Vec::new(), Vec::new());
    let v = z.len() / targets.len().max(1);
    for (z, &target) in z.chunks(v.max(1)).zip(targets) {
        let mut p = plain::softmax(z);
        let top = z.iter().copied().fold(z[0], |a, b| if b > a { b } else { a });
        let mut sum = T::of(0.0);
        z.iter().for_each(|&z| sum += (z - top).exp());
        losses.push(sum.ln() + (top - z[target as usize]));
        p[target as usize] -= T::of(1.0);
        dz.extend(p);
    }
    (losses, dz)
}

fn total<T: Real>(x: &[T]) -> T {
    let mut sum = T::of(0.0);
    x.iter().for_each(|&x| sum += x);
    sum
}

/// Rows of `v` logits of this spread, the target of row i being 7i modulo v.
fn check(rows: usize, v: usize, spread: f32) {
    let mut z: Vec<f32> = bf16_values(rows * v, (rows + v) as u64).iter().map(|z| z * spread).collect();
    round_bf16(&mut z);
    let targets: Vec<u32> = (0..rows).map(|i| (7 * i % v) as u32).collect();
    let ran = on_all_orders(|device| {
        let cx = Cx::new(device.clone());
        let mut logits = upload_bf16(device, [rows, v], &z);
        let loss = cross_entropy::of_logits(&cx, &mut logits, &targets, false).unwrap().read().unwrap();
        assert_eq!(download(&logits), z, "the loss alone changes nothing");
        let again = cross_entropy::of_logits(&cx, &mut logits, &targets, true).unwrap().read().unwrap();
        assert_eq!(loss, again);
        vec![vec![loss as f32], download(&logits)]
    });
    let (loss64, dz64) = formula(&wide(&z), &targets);
    let (loss32, mut dz32) = formula(&z, &targets);
    round_bf16(&mut dz32);
    let name = |what| format!("{what} of {rows} rows of {v}, spread {spread}");
    assert_rule(&ran[0], &[total(&loss64)], &[total(&loss32)], Rule::OUTPUT, &name("loss"));
    assert_rule(&ran[1], &dz64, &dz32, Rule::GRADIENT, &name("gradient"));
}

#[test]
fn of_logits_of_any_shape() {
    for (rows, v) in [(1, 1), (1, 7), (3, 8), (5, 33), (9, 513), (2, 4096), (3, 5003)] {
        check(rows, v, 1.0);
    }
    for spread in [0.1, 20.0] {
        check(3, 1031, spread);
    }
}

#[test]
fn of_no_rows_is_zero() {
    for device in orders() {
        let cx = Cx::new(device.clone());
        let mut z = upload_bf16(&device, [0, 5], &[]);
        assert_eq!(cross_entropy::of_logits(&cx, &mut z, &[], true).unwrap().read().unwrap(), 0.0);
    }
}

/// A token that cannot come adds nothing, a NaN is not lost.
#[test]
fn logits_that_are_not_finite() {
    let device = &orders()[0];
    let cx = Cx::new(device.clone());
    let run = |z: &[f32]| {
        let mut logits = upload_bf16(device, [1, z.len()], z);
        let loss = cross_entropy::of_logits(&cx, &mut logits, &[1], true).unwrap().read().unwrap();
        (loss, download(&logits))
    };
    let (loss, dz) = run(&[f32::NEG_INFINITY, 1.0, 1.0, f32::NEG_INFINITY]);
    assert!((loss - 2f64.ln()).abs() < 1e-6);
    assert_eq!(dz, [0.0, -0.5, 0.5, 0.0]);
    let (loss, dz) = run(&[f32::NAN, 1.0, 1.0]);
    assert!(loss.is_nan() && dz.iter().all(|x| x.is_nan()));
}

/// Many losses add up to more digits than an f32 has.
#[test]
fn the_sum_keeps_its_digits() {
    let (rows, v) = (3000, 3);
    let z = bf16_values(rows * v, 5);
    let targets = vec![2; rows];
    let device: Device = "emulator".parse().unwrap();
    let mut logits = upload_bf16(&device, [rows, v], &z);
    let cx = Cx::new(device);
    let sum = cross_entropy::of_logits(&cx, &mut logits, &targets, false).unwrap().read().unwrap();
    let truth = total(&formula(&wide(&z), &targets).0);
    assert!((sum / truth - 1.0).abs() < 2e-8, "{sum} {truth}");
}

/// Loss and dx of x [n, d] under a frozen head, or with its gradients.
fn check_head(targets: &[i64], v: usize, d: usize, trained: bool) {
    let n = targets.len();
    let (x, w, b) = (bf16_values(n * d, 1), bf16_values(v * d, 2), bf16_values(v, 3));
    let ran = on_all_orders(|device| {
        let cx = Cx::new(device.clone());
        let mut head = linear(v, d, &w, Some(&b));
        let mut grads = place(device, head.params_mut(), |_| trained, 0.0);
        let x = upload_bf16(device, [n, d], &x);
        let alone = cross_entropy::run(&cx, &x, &head, targets, false, None).unwrap();
        let loss = cross_entropy::run(&cx, &x, &head, targets, true, Some(&mut grads)).unwrap();
        assert_eq!((alone.sum, alone.tokens), (loss.sum, loss.tokens));
        let mut out = vec![vec![loss.sum as f32], download(&loss.dx.unwrap())];
        for p in head.params() {
            out.extend(grads.view(p).unwrap().as_ref().map(download));
        }
        out
    });
    // The unfused form: every tensor between two operations is rounded to bf16.
    let kept: Vec<usize> = (0..n).filter(|&i| targets[i] != cross_entropy::IGNORE).collect();
    let ids: Vec<u32> = kept.iter().map(|&i| targets[i] as u32).collect();
    let m = kept.len();
    let at = |i: usize, l: usize| x[kept[i] * d + l];
    let (z32, z64) = product([m, v, d], at, |l, j| w[j * d + l]);
    let mut z32: Vec<f32> = z32.iter().enumerate().map(|(i, z)| z + b[i % v]).collect();
    round_bf16(&mut z32);
    let z64: Vec<f64> = z64.iter().enumerate().map(|(i, z)| z + f64::from(b[i % v])).collect();
    let ((loss32, mut dz32), (loss64, dz64)) = (formula(&z32, &ids), formula(&z64, &ids));
    round_bf16(&mut dz32);
    let name = |what| format!("{what} of {n} rows, {m} kept, {v} by {d}");
    assert_rule(&ran[0], &[total(&loss64)], &[total(&loss32)], Rule::OUTPUT, &name("loss"));

    let (mut dx32, mut dx64) = (vec![0f32; n * d], vec![0f64; n * d]);
    let (mut dw, mut db) = ((vec![0f32; v * d], vec![0f64; v * d]), (vec![0f32; v], vec![0f64; v]));
    for (i, &row) in kept.iter().enumerate() {
        for j in 0..v {
            let (d32, d64) = (dz32[i * v + j], dz64[i * v + j]);
            db.0[j] += d32;
            db.1[j] += d64;
            for l in 0..d {
                dx32[row * d + l] += d32 * w[j * d + l];
                dx64[row * d + l] += d64 * f64::from(w[j * d + l]);
                dw.0[j * d + l] += d32 * x[row * d + l];
                dw.1[j * d + l] += d64 * f64::from(x[row * d + l]);
            }
        }
    }
    round_bf16(&mut dx32);
    assert_rule(&ran[1], &dx64, &dx32, Rule::GRADIENT, &name("dx"));
    if trained {
        assert_rule(&ran[2], &dw.1, &dw.0, Rule::GRADIENT, &name("dW"));
        assert_rule(&ran[3], &db.1, &db.0, Rule::GRADIENT, &name("db"));
    } else {
        assert_eq!(ran.len(), 2, "no gradients of a frozen head");
    }
}

#[test]
fn through_the_head() {
    let every: Vec<i64> = (0..37).map(|i| i * 5 % 41).collect();
    check_head(&every, 41, 24, false);
    check_head(&every, 48, 64, true);
    check_head(&[3], 9, 16, false);
}

#[test]
fn random_sizes() {
    for mut draw in cases(6) {
        check(draw.size(40), draw.size(3000), draw.pick(&[0.5, 1.0, 5.0]));
        let (v, d) = (draw.size(300), draw.size(90));
        let target = |_| if draw.below(3) == 0 { cross_entropy::IGNORE } else { draw.below(v) as i64 };
        let targets: Vec<i64> = (0..70).map(target).collect();
        check_head(&targets[..draw.size(70)], v, d, draw.coin());
    }
}

#[test]
fn a_batch_of_several_chunks_is_its_parts() {
    let device: Device = "emulator:reversed".parse().unwrap();
    let cx = Cx::new(device.clone());
    let (n, v, d) = (1030, 11, 8);
    let mut head = linear(v, d, &bf16_values(v * d, 2), None);
    place(&device, head.params_mut(), |_| false, 0.0);
    let x = upload_bf16(&device, [n, d], &bf16_values(n * d, 1));
    let targets: Vec<i64> = (0..n as i64).map(|i| i % 11).collect();
    let run = |rows: std::ops::Range<usize>| {
        let x = x.rows(rows.clone()).unwrap();
        let loss = cross_entropy::run(&cx, &x, &head, &targets[rows], true, None).unwrap();
        (loss.sum, download(&loss.dx.unwrap()))
    };
    let (whole, first, last) = (run(0..n), run(0..1024), run(1024..n));
    assert_eq!(whole.1, [first.1, last.1].concat());
    assert!((whole.0 / (first.0 + last.0) - 1.0).abs() < 1e-12);
}

/// Recorded once, with other targets and other rows of x in the same memory at each replay.
#[test]
fn recorded_losses_are_those_of_a_run() {
    let device: Device = "emulator".parse().unwrap();
    let (cx, mut graphs) = (Cx::new(device.clone()), Graphs::default());
    let mut head = linear(9, 8, &bf16_values(72, 1), Some(&bf16_values(9, 2)));
    place(&device, head.params_mut(), |_| false, 0.0);
    let x = upload_bf16(&device, [3, 8], &bf16_values(24, 3));
    let rounds = [[3, 6, -100], [5, 8, -100], [-100, 2, 4]].repeat(4);
    for targets in &rounds {
        let queued =
            cx.replay(&mut graphs, |cx| cross_entropy::queue(cx, &x, &head, targets, true, None)).unwrap();
        let run = cross_entropy::run(&Cx::new(device.clone()), &x, &head, targets, true, None).unwrap();
        assert_eq!((queued.sum.read().unwrap(), queued.tokens), (run.sum, 2));
        assert_eq!(download(&queued.dx.unwrap()), download(&run.dx.unwrap()));
    }
    // Until the arena holds all that the work takes, its addresses change.
    assert!(graphs.len() <= 3, "{} recordings", graphs.len());
}

#[test]
fn rows_without_a_target_are_left_out() {
    check_head(&[4, -100, 0, 10, -100, 7], 11, 16, true);
    check_head(&[-100, 8, -100], 11, 16, false);
    let device: Device = "emulator".parse().unwrap();
    let cx = Cx::new(device.clone());
    let mut head = linear(9, 8, &bf16_values(72, 1), None);
    place(&device, head.params_mut(), |_| false, 0.0);
    let x = upload_bf16(&device, [2, 8], &bf16_values(16, 2));
    let loss = cross_entropy::run(&cx, &x, &head, &[-100, -100], true, None).unwrap();
    assert_eq!((loss.sum, loss.tokens, download(&loss.dx.unwrap())), (0.0, 0, vec![0.0; 16]));
}
