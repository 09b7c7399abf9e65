//! LayerNorm, with the gradient of its residual and with LoRA's first product, on the emulator, in every order of its threads.
#![cfg(feature = "emulator")]

mod common;
#[path = "common/emulated.rs"]
mod emulated;

use common::param;
use emulated::place;
use pheye_ops::Cx;
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_tensor::{Device, Grads, Param, Shape, Tensor};
use pheye_testkit::gpu::{
    assert_rule, bf16_values, download, on_all_orders, round_bf16, upload_bf16, upload_f32,
};
use pheye_testkit::{Real, Rule, cases, normal};

/// What every gradient holds before backward adds to it.
const BEFORE: f32 = 0.5;

fn added(grads: &Grads, param: &Param) -> Vec<f32> {
    download(&grads.view(param).unwrap().unwrap())
}

/// Widths of each kernel, with and without 16-byte accesses, and more rows than the blocks of a launch take at once.
const SHAPES: [[usize; 2]; 11] = [
    [1, 1],
    [3, 7],
    [5, 64],
    [2, 1280],
    [3, 1279],
    [2, 1288],
    [1, 2048],
    [2, 5113],
    [2, 5120],
    [2, 5130],
    [600, 8],
];

type Upload = fn(&Device, Shape, &[f32]) -> Tensor;
const UPLOADS: [(bool, Upload); 2] =
    [(true, |d, s, x| upload_bf16(d, s, x)), (false, |d, s, x| upload_f32(d, s, x))];

fn keep(narrow: bool, mut x: Vec<f32>) -> Vec<f32> {
    if narrow {
        round_bf16(&mut x);
    }
    x
}

fn of<T: Real>(x: &[f32]) -> Vec<T> {
    x.iter().map(|&x| T::of(x.into())).collect()
}

fn sums<T: Real>(x: &[f32], y: &[f32]) -> Vec<T> {
    x.iter().zip(y).map(|(&x, &y)| T::of(x.into()) + T::of(y.into())).collect()
}

/// x̂ and rstd of each row.
fn normalised<T: Real>(x: &[T], d: usize) -> (Vec<T>, Vec<T>) {
    let n = T::of(d as f64);
    let (mut xhat, mut rstds) = (Vec::new(), Vec::new());
    for row in x.chunks(d) {
        let (mut sum, mut squares) = (T::of(0.0), T::of(0.0));
        row.iter().for_each(|&x| sum += x);
        let mean = sum / n;
        row.iter().for_each(|&x| squares += (x - mean) * (x - mean));
        let rstd = T::of(1.0) / (squares / n + T::of(1e-5)).sqrt();
        xhat.extend(row.iter().map(|&x| (x - mean) * rstd));
        rstds.push(rstd);
    }
    (xhat, rstds)
}

fn forward<T: Real>(x: &[T], weight: &[f32], bias: &[f32]) -> Vec<T> {
    let d = weight.len();
    let (weight, bias) = (of::<T>(weight), of::<T>(bias));
    normalised(x, d).0.iter().enumerate().map(|(i, &x)| x * weight[i % d] + bias[i % d]).collect()
}

/// dx, dweight, dbias.
fn backward<T: Real>(x: &[T], dy: &[f32], weight: &[f32]) -> [Vec<T>; 3] {
    let d = weight.len();
    let (n, weight, dy) = (T::of(d as f64), of::<T>(weight), of::<T>(dy));
    let (xhat, rstd) = normalised(x, d);
    let (mut dx, mut dweight, mut dbias) = (Vec::new(), of(&vec![BEFORE; d]), of(&vec![BEFORE; d]));
    for ((xhat, dy), &rstd) in xhat.chunks(d).zip(dy.chunks(d)).zip(&rstd) {
        let (mut sum, mut product) = (T::of(0.0), T::of(0.0));
        for i in 0..d {
            sum += dy[i] * weight[i];
            product += dy[i] * weight[i] * xhat[i];
            dweight[i] += dy[i] * xhat[i];
            dbias[i] += dy[i];
        }
        dx.extend((0..d).map(|i| rstd * (dy[i] * weight[i] - sum / n - xhat[i] * (product / n))));
    }
    [dx, dweight, dbias]
}

fn layer(d: usize) -> LayerNorm {
    let (weight, bias) = (param("weight", [d], &normal(2, d)), param("bias", [d], &normal(3, d)));
    LayerNorm { weight, bias, eps: 1e-5 }
}

#[test]
fn forward_and_backward_of_fixed_and_random_shapes() {
    // Of fewer columns the plain formula is exact now and then, by luck.
    let random = cases(8).map(|mut draw| [draw.size(70), 15 + draw.size(2100)]);
    for ([rows, d], (narrow, upload)) in
        SHAPES.into_iter().chain(random).flat_map(|s| UPLOADS.map(|u| (s, u)))
    {
        let (x, dy) = (bf16_values(rows * d, 1), bf16_values(rows * d, 4));
        let ran = on_all_orders(|device| {
            let (cx, mut p) = (Cx::new(device.clone()), layer(d));
            let mut grads = place(device, p.params_mut(), |_| true, BEFORE);
            let [x, dy] = [&x, &dy].map(|t| upload(device, [rows, d].into(), t));
            let (y, saved) = layernorm::forward(&cx, &x, &p).unwrap();
            let dx = layernorm::backward(&cx, &saved, &dy, &p, Some(&mut grads)).unwrap();
            vec![download(&y), download(&dx), added(&grads, &p.weight), added(&grads, &p.bias)]
        });
        let name = format!("layernorm [{rows}, {d}] {narrow}");
        let (weight, bias) = (normal(2, d), normal(3, d));
        let y = forward::<f64>(&of(&x), &weight, &bias);
        assert_rule(&ran[0], &y, &keep(narrow, forward(&x, &weight, &bias)), Rule::OUTPUT, &name);
        let truth = backward::<f64>(&of(&x), &dy, &weight);
        let [dx, dweight, dbias] = backward(&x, &dy, &weight);
        let naive = [keep(narrow, dx), dweight, dbias];
        for (i, what) in ["dx", "dweight", "dbias"].into_iter().enumerate() {
            assert_rule(&ran[1 + i], &truth[i], &naive[i], Rule::GRADIENT, &format!("{name} {what}"));
        }
    }
}

#[test]
fn the_residual_gradient_is_that_of_the_unfused_form() {
    for ([rows, d], (narrow, upload)) in SHAPES.into_iter().flat_map(|s| UPLOADS.map(|u| (s, u))) {
        let [x, dy, dres] = [1, 4, 6].map(|seed| bf16_values(rows * d, seed));
        let run = |device: &Device, held: bool| {
            let (cx, mut p) = (Cx::new(device.clone()), layer(d));
            place(device, p.params_mut(), |_| false, BEFORE);
            let [x, dy, dres] = [&x, &dy, &dres].map(|t| upload(device, [rows, d].into(), t));
            let (_, saved) = layernorm::forward(&cx, &x, &p).unwrap();
            let view = held.then(|| dres.clone());
            let dx = layernorm::backward_residual(&cx, &saved, &dy, dres, &p, None).unwrap();
            (vec![download(&dx)], view.as_ref().map(download))
        };
        let ran = on_all_orders(|device| run(device, false).0);
        let (again, held) = run(&pheye_testkit::gpu::orders()[0], true);
        assert_eq!((&again, held), (&ran, Some(dres.clone())), "in place and not");

        let name = format!("layernorm with residual [{rows}, {d}] {narrow}");
        let weight = normal(2, d);
        // The unfused form rounds LN's gradient, and the sum of that and dres.
        let [dx, ..] = backward::<f64>(&of(&x), &dy, &weight);
        let truth: Vec<f64> = dx.iter().zip(&dres).map(|(dx, &r)| dx + f64::from(r)).collect();
        let [dx, ..] = backward(&x, &dy, &weight);
        let naive = keep(narrow, sums(&keep(narrow, dx), &dres));
        assert_rule(&ran[0], &truth, &naive, Rule::GRADIENT, &format!("{name} dx"));
    }
}

/// A view that starts within 16 bytes has the same values as a copy of it, near enough for another order of the sums.
#[test]
fn rows_off_a_16_byte_boundary() {
    let (rows, d) = (3, 16);
    let values = bf16_values(rows * d + 3, 1);
    let ran = on_all_orders(|device| {
        let (cx, mut p) = (Cx::new(device.clone()), layer(d));
        place(device, p.params_mut(), |_| false, BEFORE);
        let x = upload_bf16(device, [rows * d + 3], &values).view(3, [rows, d]).unwrap();
        let (y, saved) = layernorm::forward(&cx, &x, &p).unwrap();
        let dx = layernorm::backward_residual(&cx, &saved, &y, x.clone(), &p, None).unwrap();
        vec![download(&y), download(&dx)]
    });
    let x = &values[3..];
    let (weight, bias) = (normal(2, d), normal(3, d));
    let naive = keep(true, forward(x, &weight, &bias));
    assert_rule(&ran[0], &forward::<f64>(&of(x), &weight, &bias), &naive, Rule::OUTPUT, "y");
    let [truth, ..] = backward::<f64>(&of(x), &ran[0], &weight);
    let truth: Vec<f64> = truth.iter().zip(x).map(|(dx, &r)| dx + f64::from(r)).collect();
    let [dx, ..] = backward(x, &ran[0], &weight);
    let naive = keep(true, sums(&keep(true, dx), x));
    assert_rule(&ran[1], &truth, &naive, Rule::GRADIENT, "dx");
}

#[test]
fn nothing_comes_of_no_rows() {
    on_all_orders(|device| {
        let (cx, mut p) = (Cx::new(device.clone()), layer(16));
        let mut grads = place(device, p.params_mut(), |_| true, BEFORE);
        let x = upload_bf16(device, [0, 16], &[]);
        let (y, saved) = layernorm::forward(&cx, &x, &p).unwrap();
        let dx = layernorm::backward(&cx, &saved, &x, &p, Some(&mut grads)).unwrap();
        assert_eq!((y.shape().dims(), dx.shape().dims()), (&[0, 16][..], &[0, 16][..]));
        assert_eq!(added(&grads, &p.weight), vec![BEFORE; 16]);
        vec![]
    });
}

/// S = y·Aᵀ of the y that was written, beside what the norm alone writes.
#[test]
fn lora_down_rides_on_the_norm_for_fixed_and_random_shapes() {
    let shapes = [[1, 8, 1], [17, 1280, 16], [33, 64, 48], [5, 1272, 24], [100, 24, 40], [16, 48, 48]];
    let random = cases(6).map(|mut draw| [draw.size(70), 8 * (1 + draw.below(160)), 8 * (1 + draw.below(6))]);
    for [rows, d, n] in shapes.into_iter().chain(random) {
        let x = bf16_values(rows * d, 1);
        let a = bf16_values(n * d, 7);
        let ran = on_all_orders(|device| {
            let (cx, mut p) = (Cx::new(device.clone()), layer(d));
            place(device, p.params_mut(), |_| false, BEFORE);
            let x = upload_bf16(device, [rows, d], &x);
            let a = upload_bf16(device, [n, d], &a);
            let out = layernorm::forward_lora_down(&cx, &x, &p, &a).unwrap();
            assert_eq!(out.s.shape().dims(), [rows, n]);
            vec![download(&out.y), download(&out.s)]
        });
        let name = format!("layernorm and A [{rows}, {d}] to {n}");
        let (weight, bias) = (normal(2, d), normal(3, d));
        let truth = forward(&of(&x), &weight, &bias);
        let naive = keep(true, forward(&x, &weight, &bias));
        assert_rule(&ran[0], &truth, &naive, Rule::OUTPUT, &name);
        let truth = common::product(&truth, &of(&a), d);
        let naive = keep(true, common::product(&naive, &a, d));
        assert_rule(&ran[1], &truth, &naive, Rule::OUTPUT, &format!("{name} S"));
    }
}
