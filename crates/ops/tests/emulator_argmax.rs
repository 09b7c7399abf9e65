//! Choices among logits on the emulator: the same as on the CPU, to the bit.
#![cfg(feature = "emulator")]

use pheye_ops::sampling::{self, Sampling};
use pheye_ops::{Cx, argmax, topk};
use pheye_tensor::{DType, Device, Tensor};
use pheye_testkit::gpu::{orders, round_bf16, upload_bf16, upload_f32};
use pheye_testkit::normal;

type Upload = fn(&Device, [usize; 2], &[f32]) -> Tensor;
const UPLOADS: [Upload; 2] = [upload_bf16, upload_f32];

/// Logits with ties: bf16 values of the given spread.
fn logits(rows: usize, cols: usize, spread: f32, seed: u64) -> Vec<f32> {
    let mut x: Vec<f32> = normal(seed, rows * cols).iter().map(|x| x * spread).collect();
    round_bf16(&mut x);
    x
}

/// The same question on the CPU and on every order of the emulator, for both element types.
fn same<R: PartialEq + std::fmt::Debug>(
    shape: [usize; 2],
    x: &[f32],
    ask: impl Fn(&Cx, &Tensor) -> pheye_ops::Result<R>,
) -> R {
    same_on(&orders(), shape, x, ask)
}

fn same_on<R: PartialEq + std::fmt::Debug>(
    devices: &[Device],
    [rows, cols]: [usize; 2],
    x: &[f32],
    ask: impl Fn(&Cx, &Tensor) -> pheye_ops::Result<R>,
) -> R {
    let host = Tensor::from_f32([rows, cols], x).unwrap();
    let answer = ask(&Cx::cpu(), &host).unwrap();
    for device in devices {
        let cx = Cx::new(device.clone());
        for upload in UPLOADS {
            let on_device = ask(&cx, &upload(device, [rows, cols], x)).unwrap();
            assert_eq!(on_device, answer, "{rows} x {cols} on {device}");
        }
    }
    answer
}

const SHAPES: [[usize; 2]; 7] = [[1, 1], [2, 3], [3, 8], [4, 31], [3, 1027], [2, 9001], [1, 8192]];

#[test]
fn argmax_of_any_shape() {
    for shape @ [rows, cols] in SHAPES {
        let x = logits(rows, cols, 1.0, cols as u64);
        let ids = same(shape, &x, argmax::forward);
        for (row, &id) in x.chunks(cols).zip(&ids) {
            assert!(row.iter().all(|&v| v <= row[id as usize]));
        }
    }
    assert_eq!(same([0, 5], &[], argmax::forward), Vec::<u32>::new());
}

#[test]
fn the_first_of_equals_and_not_a_number() {
    let inf = f32::INFINITY;
    let rows: [&[f32]; 6] = [
        &[1.0, 7.0, 7.0, 2.0],
        &[-0.0, 0.0, -0.0, -1.0],
        &[3.0, f32::NAN, inf, f32::NAN],
        &[f32::NAN, 1.0, 2.0, 3.0],
        &[-inf, -inf, -inf, -inf],
        &[-5.0, -3.0, -3.0, -inf],
    ];
    assert_eq!(same([6, 4], &rows.concat(), argmax::forward), [1, 0, 1, 0, 0, 1]);
    let ids = same([6, 4], &rows.concat(), |cx, x| Ok(topk::forward(cx, x, 4)?.ids));
    let expected = [[1, 2, 3, 0], [0, 1, 2, 3], [1, 3, 2, 0], [0, 3, 2, 1], [0, 1, 2, 3], [1, 2, 0, 3]];
    assert_eq!(ids, expected.concat());
    // What generation takes for a sign that some logit is not finite.
    let largest = |cx: &Cx, x: &Tensor| {
        let values = topk::forward(cx, x, 1)?.values;
        Ok(values.into_iter().map(|v| if v.is_finite() { "finite" } else { "not" }).collect::<Vec<_>>())
    };
    assert_eq!(same([6, 4], &rows.concat(), largest), ["finite", "finite", "not", "not", "not", "finite"]);
    let equal = vec![0.25; 5000];
    assert_eq!(
        same([1, 5000], &equal, |cx, x| Ok(topk::forward(cx, x, 9)?.ids)),
        [0, 1, 2, 3, 4, 5, 6, 7, 8]
    );
}

#[test]
fn topk_is_the_head_of_the_sorted_row() {
    for shape @ [rows, cols] in SHAPES {
        // All of a short row, some of a long one.
        for k in [1, 7.min(cols), if cols == 1027 { 64 } else { 3.min(cols) }] {
            let x = logits(rows, cols, 1.0, (cols + k) as u64);
            let best = same(shape, &x, |cx, x| topk::forward(cx, x, k));
            for (i, row) in x.chunks(cols).enumerate() {
                let mut order: Vec<usize> = (0..cols).collect();
                order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
                let ids: Vec<usize> = best.ids[i * k..][..k].iter().map(|&i| i as usize).collect();
                assert_eq!(ids, order[..k]);
                assert!(ids.iter().zip(&best.values[i * k..]).all(|(&i, v)| row[i] == *v));
            }
        }
    }
}

#[test]
fn topk_refuses_more_than_there_is() {
    for k in [0, 4] {
        let x = Tensor::zeros([2, 3], DType::F32);
        let fault = topk::forward(&Cx::cpu(), &x, k).unwrap_err().to_string();
        assert_eq!(fault, format!("topk: k is {k}, allowed is 1..=3"));
    }
}

#[test]
fn the_same_tokens_are_drawn_on_every_device() {
    let ways = [
        Sampling::default(),
        Sampling { temperature: 0.7, seed: 1, ..Sampling::default() },
        Sampling { top_k: 5, seed: 2, ..Sampling::default() },
        Sampling { top_p: 0.9, seed: 3, ..Sampling::default() },
        Sampling { temperature: 1.3, top_k: 50, top_p: 0.8, seed: 4 },
        Sampling { temperature: 0.0, ..Sampling::default() },
        Sampling { temperature: 1e-6, top_p: 1e-9, ..Sampling::default() },
    ];
    for shape @ [rows, cols] in [[1, 1], [2, 3], [2, 31], [2, 1027], [1, 4099]] {
        for (i, how) in ways.iter().enumerate() {
            // The order that the CPU's token is compared with: in turn, for a search of 32 rounds is slow on the emulator.
            let device = &orders()[(i + cols) % 3..][..1];
            let x = logits(rows, cols, 2.5, (cols + i) as u64);
            let draws: Vec<u64> = (0..rows as u64).map(|r| r << 33 | r).collect();
            same_on(device, shape, &x, |cx, x| sampling::forward(cx, x, how, &draws));
        }
    }
    assert_eq!(same([0, 3], &[], |cx, x| sampling::forward(cx, x, &ways[0], &[])), Vec::<u32>::new());
}

#[test]
fn rows_that_are_not_finite_give_their_largest() {
    let inf = f32::INFINITY;
    let x = [[1.0, inf, inf], [f32::NAN, 2.0, 1.0], [-inf, -inf, -inf]].concat();
    let draw = |cx: &Cx, x: &Tensor| sampling::forward(cx, x, &Sampling::default(), &[1, 2, 3]);
    assert_eq!(same([3, 3], &x, draw), [1, 0, 0]);
    // What cannot come is never drawn.
    let x = [-inf, 0.0, -inf, 0.0].repeat(20);
    let draws: Vec<u64> = (0..20).collect();
    let ids = same([20, 4], &x, |cx, x| sampling::forward(cx, x, &Sampling::default(), &draws));
    assert!(ids.iter().all(|i| i % 2 == 1) && ids.contains(&1) && ids.contains(&3));
}

/// Shares of drawn tokens against their probabilities.
#[test]
fn tokens_come_as_often_as_they_should() {
    let row = [0.0f32, 1.0, -1.0, 2.0, 1.5];
    let n = 20_000;
    let x = Tensor::from_f32([n, 5], &row.repeat(n)).unwrap();
    let draws: Vec<u64> = (0..n as u64).collect();
    let shares = |how: Sampling| {
        let mut counts = [0.0; 5];
        let ids = sampling::forward(&Cx::cpu(), &x, &how, &draws).unwrap();
        ids.iter().for_each(|&i| counts[i as usize] += 1.0 / n as f64);
        counts
    };
    let check = |how: Sampling, kept: &[usize]| {
        let weight = |i: usize| (f64::from(row[i]) / f64::from(how.temperature)).exp();
        let total: f64 = kept.iter().map(|&i| weight(i)).sum();
        for (i, share) in shares(how).into_iter().enumerate() {
            let p = if kept.contains(&i) { weight(i) / total } else { 0.0 };
            assert!(
                (share - p).abs() <= 5.0 * (p * (1.0 - p) / n as f64).sqrt(),
                "{how:?}, {i}: {share} of {p}"
            );
        }
    };
    check(Sampling::default(), &[0, 1, 2, 3, 4]);
    check(Sampling { temperature: 0.5, seed: 9, ..Sampling::default() }, &[0, 1, 2, 3, 4]);
    check(Sampling { top_k: 3, ..Sampling::default() }, &[1, 3, 4]);
    // Probabilities 0.47, 0.28, 0.17, 0.06, 0.02: two make 0.75.
    check(Sampling { top_p: 0.7, ..Sampling::default() }, &[3, 4]);
    check(Sampling { top_p: 0.8, ..Sampling::default() }, &[1, 3, 4]);
    check(Sampling { top_k: 2, top_p: 0.99, ..Sampling::default() }, &[3, 4]);
}

#[test]
fn options_out_of_range_are_refused() {
    let x = Tensor::zeros([1, 3], DType::F32);
    let says = |how: Sampling, draws: &[u64]| {
        sampling::forward(&Cx::cpu(), &x, &how, draws).unwrap_err().to_string()
    };
    let with = Sampling::default();
    let hot = says(Sampling { temperature: -1.0, ..with }, &[0]);
    assert_eq!(hot, "sampling: temperature is -1, allowed is a finite number from 0");
    assert_eq!(
        says(Sampling { top_p: 0.0, ..with }, &[0]),
        "sampling: top_p is 0, allowed is above 0, up to 1"
    );
    assert_eq!(says(with, &[]), "sampling: logits [1, 3] does not fit draws [0]");
}
