//! Linear and LoRA against their formulas.

mod common;

use common::{
    grad_of, linear as affine, param, product, rounded, same_on_any_threads, tensor, train_all, values,
};
use pheye_cpu::philox::{philox4x32_10, uniform, words};
use pheye_ops::gelu::{self, Gelu};
use pheye_ops::linear::{self, BackwardEpilogue, Epilogue};
use pheye_ops::lora::{self, Adapter, Dropout, LoraLinear, Route, RowRange};
use pheye_ops::{Cx, Error, add};
use pheye_testkit::{Formula, Ran, Real, gradcheck, normal};
use proptest::prelude::*;

struct Affine {
    k: usize,
}

impl Formula for Affine {
    fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
        let n = x[2].len();
        product(&x[0], &x[1], self.k).into_iter().enumerate().map(|(i, y)| y + x[2][i % n]).collect()
    }
}

/// Forward, and backward where the weight is trained, of x [m, k] and W [n, k].
fn check_linear(m: usize, k: usize, n: usize, half: bool) {
    let mut p = affine(n, k, &normal(2, n * k), Some(&normal(3, n)));
    let mut w = values(&p.weight.value);
    if half {
        let (narrow, wide) = rounded(&p.weight);
        (p.weight, w) = (narrow, values(&wide.value));
    }
    let inputs = [("x", normal(1, m * k)), ("weight", w), ("bias", normal(3, n))];
    gradcheck("linear", &Affine { k }, &inputs, |i, dy| {
        let (cx, dy) = (Cx::cpu(), tensor([m, n], dy));
        let mut grads = (!half).then(|| train_all(p.params_mut()));
        let (y, saved) = linear::forward(&cx, &tensor([m, k], &i[0]), &p).unwrap();
        let dx = linear::backward(&cx, &saved, &dy, &p, grads.as_mut()).unwrap();
        let mut all = vec![("x", values(&dx))];
        if let Some(mut grads) = grads {
            let (dw, db) = (grad_of(&mut grads, &p.weight), grad_of(&mut grads, p.bias.as_ref().unwrap()));
            linear::backward_params(&cx, &saved, &dy, &p, Some(&mut grads)).unwrap();
            let twice = grad_of(&mut grads, &p.weight);
            assert!(twice.iter().zip(&dw).all(|(a, b)| (a - 2.0 * b).abs() < 1e-4), "adds");
            all.extend([("weight", dw), ("bias", db)]);
        }
        Ran { y: values(&y), grads: all }
    });
}

#[test]
fn linear_f32() {
    check_linear(7, 19, 18, false);
}

#[test]
fn linear_bf16() {
    check_linear(7, 19, 18, true);
}

#[test]
fn empty_matrices() {
    let cx = Cx::cpu();
    for (m, k, n) in [(0, 3, 2), (2, 0, 3), (3, 2, 0)] {
        let p = affine(n, k, &normal(1, n * k), Some(&vec![0.5; n]));
        if n * k > 0 {
            let (y, saved) = linear::forward(&cx, &tensor([m, k], &[]), &p).unwrap();
            assert_eq!(y.shape().dims(), [0, n]);
            assert_eq!(linear::backward(&cx, &saved, &y, &p, None).unwrap().shape().dims(), [0, k]);
        } else if n > 0 {
            let (y, _) = linear::forward(&cx, &tensor([m, k], &[]), &p).unwrap();
            assert_eq!(y.f32().unwrap(), vec![0.5; m * n]);
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let cx = Cx::cpu();
    let p = affine(2, 3, &[0.0; 6], None);
    let x = tensor([4, 3], &[0.0; 12]);
    let is_shapes = |e| matches!(e, Error::Shapes { op: "linear", .. });
    assert!(is_shapes(linear::forward(&cx, &tensor([3, 4], &[0.0; 12]), &p).unwrap_err()));
    let (_, saved) = linear::forward(&cx, &x, &p).unwrap();
    assert!(is_shapes(linear::backward(&cx, &saved, &x, &p, None).unwrap_err()));
    let p = LoraLinear { base: p, adapters: vec![None], module: 0 };
    let route = |rows, adapter| Route { ranges: vec![RowRange { rows, adapter }], dropout: None };
    for (bad, what) in [(route(0..5, None), "range of rows"), (route(0..4, Some(1)), "adapter")] {
        match lora::forward(&cx, &x, &p, &bad).unwrap_err() {
            Error::Range { what: w, .. } => assert_eq!(w, what),
            e => panic!("{e}"),
        }
    }
    let dropout = Some(Dropout { p: 1.0, seed: 0, rng_offset: 0 });
    assert!(lora::forward(&cx, &x, &p, &Route { ranges: vec![], dropout }).is_err());
}

/// x, W, b, then A and B of each adapter.
struct Lora {
    k: usize,
    n: usize,
    scale: Vec<f32>,
    route: Route,
    module: u32,
}

impl Lora {
    fn factor(&self, i: usize) -> f64 {
        let Some(Dropout { p, seed, rng_offset }) = self.route.dropout else { return 1.0 };
        let [low, high] = words(rng_offset);
        let word = philox4x32_10([(i / 4) as u32, self.module, low, high], words(seed))[i % 4];
        if uniform(word) >= p { (1.0 / (1.0 - p)) as f64 } else { 0.0 }
    }
}

impl Formula for Lora {
    fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
        let (k, n) = (self.k, self.n);
        let mut y = Affine { k }.eval(&x[..3]);
        for RowRange { rows, adapter } in &self.route.ranges {
            let Some(i) = *adapter else { continue };
            let (a, b) = (&x[3 + 2 * i], &x[4 + 2 * i]);
            let at = rows.start * k..rows.end * k;
            let dropped: Vec<T> =
                x[0][at.clone()].iter().zip(at).map(|(&x, i)| x * T::of(self.factor(i))).collect();
            let more = product(&product(&dropped, a, k), b, a.len() / k);
            for (y, more) in y[rows.start * n..].iter_mut().zip(more) {
                *y += more * T::of(self.scale[i] as f64);
            }
        }
        y
    }
}

fn ranges(all: &[(usize, usize, Option<usize>)]) -> Vec<RowRange> {
    all.iter().map(|&(from, to, adapter)| RowRange { rows: from..to, adapter }).collect()
}

/// A linear k → n with adapters of the ranks, and its values as [`Lora`] takes them after x.
fn lora_linear(k: usize, n: usize, ranks: &[usize]) -> (LoraLinear, Vec<Vec<f32>>) {
    let mut x = vec![normal(2, n * k), normal(3, n)];
    let base = affine(n, k, &x[0], Some(&x[1]));
    let adapters = ranks.iter().enumerate().map(|(i, &r)| {
        let (a, b) = (normal(10 + i as u64, r * k), normal(20 + i as u64, n * r));
        let adapter =
            Adapter { a: param("a", [r, k], &a), b: param("b", [n, r], &b), scale: 2.0 / (1 + i) as f32 };
        x.extend([a, b]);
        Some(adapter)
    });
    let adapters = adapters.collect();
    (LoraLinear { base, adapters, module: 5 }, x)
}

fn check_lora(m: usize, k: usize, n: usize, ranks: &[usize], route: Route) {
    let (mut p, weights) = lora_linear(k, n, ranks);
    let scale = p.adapters.iter().flatten().map(|a| a.scale).collect();
    let f = Lora { k, n, scale, route: route.clone(), module: p.module };
    let names = ["weight", "bias", "A of 0", "B of 0", "A of 1", "B of 1"];
    assert!(weights.len() <= names.len());
    let mut inputs = vec![("x", normal(1, m * k))];
    inputs.extend(names.into_iter().zip(weights));
    gradcheck("lora", &f, &inputs, |i, dy| {
        let cx = Cx::cpu();
        let mut grads = train_all(p.params_mut());
        let (y, saved) = lora::forward(&cx, &tensor([m, k], &i[0]), &p, &route).unwrap();
        let dx = lora::backward(&cx, &saved, &tensor([m, n], dy), &p, &route, Some(&mut grads)).unwrap();
        let mut all = vec![("x", values(&dx))];
        all.extend(names.into_iter().zip(p.params().map(|p| grad_of(&mut grads, p))));
        assert_eq!(all.len(), i.len());
        Ran { y: values(&y), grads: all }
    });
}

#[test]
fn lora_with_two_adapters_and_dropout() {
    let dropout = Some(Dropout { p: 0.3, seed: 1 << 40, rng_offset: 7 << 33 });
    let all = ranges(&[(0, 4, Some(1)), (5, 9, Some(0)), (9, 10, None), (10, 13, Some(1))]);
    check_lora(14, 10, 9, &[3, 8], Route { ranges: all.clone(), dropout });
    check_lora(14, 7, 9, &[3, 8], Route { ranges: all, dropout: None });
}

#[test]
fn frozen_bf16_weights_give_the_same_dx_and_no_gradients() {
    let cx = Cx::cpu();
    let (mut p, _) = lora_linear(24, 16, &[4]);
    p.params_mut().into_iter().for_each(|p| *p = rounded(p).0);
    let route = Route { ranges: ranges(&[(0, 6, Some(0))]), dropout: None };
    let (x, dy) = (tensor([6, 24], &normal(1, 144)), tensor([6, 16], &normal(2, 96)));
    let run = |p: &LoraLinear| {
        let (y, saved) = lora::forward(&cx, &x, p, &route).unwrap();
        let dx = lora::backward(&cx, &saved, &dy, p, &route, None).unwrap();
        [values(&y), values(&dx)]
    };
    let half = run(&p);
    for p in p.params_mut() {
        p.value = p.value.to_dtype(pheye_tensor::DType::F32).unwrap();
    }
    assert_eq!(half, run(&p));
}

/// y, dx and all gradients of a LoRA linear under `route`, with rows enough for many pieces of work.
fn everything(route: &Route, m: usize) -> Vec<Vec<f32>> {
    let cx = Cx::cpu();
    let (mut p, _) = lora_linear(64, 48, &[8]);
    let mut grads = train_all(p.params_mut());
    let (x, dy) = (tensor([m, 64], &normal(1, m * 64)), tensor([m, 48], &normal(2, m * 48)));
    let (y, saved) = lora::forward(&cx, &x, &p, route).unwrap();
    let dx = lora::backward(&cx, &saved, &dy, &p, route, Some(&mut grads)).unwrap();
    vec![values(&y), values(&dx), values(&grads.flat)]
}

#[test]
fn threads_do_not_show() {
    let dropout = Some(Dropout { p: 0.05, seed: 3, rng_offset: 4 });
    same_on_any_threads(|| everything(&Route { ranges: ranges(&[(3, 1500, Some(0))]), dropout }, 1501));
}

#[test]
fn zero_dropout_is_none() {
    let route = |dropout| Route { ranges: ranges(&[(0, 100, Some(0))]), dropout };
    let zero = route(Some(Dropout { p: 0.0, seed: 3, rng_offset: 4 }));
    assert_eq!(everything(&zero, 100), everything(&route(None), 100));
}

#[test]
fn masks_depend_on_the_element_not_on_the_route() {
    let dropout = Some(Dropout { p: 0.5, seed: 3, rng_offset: 4 });
    let whole = everything(&Route { ranges: ranges(&[(0, 100, Some(0))]), dropout }, 100);
    let parts = ranges(&[(0, 33, Some(0)), (33, 34, None), (34, 100, Some(0))]);
    let parts = everything(&Route { ranges: parts, dropout }, 100);
    for (whole, parts, cols) in [(&whole[0], &parts[0], 48), (&whole[1], &parts[1], 64)] {
        for (i, (w, p)) in whole.chunks(cols).zip(parts.chunks(cols)).enumerate() {
            assert_eq!(w == p, i != 33, "row {i}");
        }
    }
}

#[test]
fn masks_drop_the_right_share() {
    let cx = Cx::cpu();
    // With A = B = I, W = 0 and s = 1, y is drop(x) itself.
    let eye: Vec<f32> = (0..64 * 64).map(|i| if i % 65 == 0 { 1.0 } else { 0.0 }).collect();
    let base = affine(64, 64, &[0.0; 64 * 64], None);
    let adapter = Adapter { a: param("a", [64, 64], &eye), b: param("b", [64, 64], &eye), scale: 1.0 };
    let mut p = LoraLinear { base, adapters: vec![Some(adapter)], module: 0 };
    let x = tensor([500, 64], &[1.0; 500 * 64]);
    let mut run = |module, rng_offset| {
        p.module = module;
        let dropout = Some(Dropout { p: 0.05, seed: 9, rng_offset });
        let route = Route { ranges: ranges(&[(0, 500, Some(0))]), dropout };
        let (y, saved) = lora::forward(&cx, &x, &p, &route).unwrap();
        let dx = lora::backward(&cx, &saved, &x, &p, &route, None).unwrap();
        assert_eq!(y.f32().unwrap(), dx.f32().unwrap(), "forward and backward use one mask");
        let y = values(&y);
        assert!(y.iter().all(|&y| y == 0.0 || y == 1.0 / (1.0 - 0.05)));
        let dropped = y.iter().filter(|&&y| y == 0.0).count() as f64 / y.len() as f64;
        // Five standard deviations of the mean of 32000 draws.
        assert!((dropped - 0.05).abs() < 5.0 * (0.05f64 * 0.95 / 32000.0).sqrt(), "{dropped}");
        y
    };
    let first = run(0, 0);
    assert_eq!(first, run(0, 0));
    assert!(first != run(1, 0) && first != run(0, 1) && first != run(0, 1 << 32));
}

proptest! {
    #![proptest_config(common::repeatable(24))]

    #[test]
    fn linears_of_any_shape(m in 1usize..20, k in 1usize..40, n in 1usize..40, half: bool) {
        check_linear(m, k, n, half);
    }

    #[test]
    fn loras_of_any_shape(m in 1usize..9, k in 1usize..12, n in 1usize..12, r in 1usize..10, cut in 0usize..9) {
        let cut = cut.min(m);
        let all = ranges(&[(0, cut, Some(0)), (cut, m, Some(1))]);
        check_lora(m, k, n, &[r, 1], Route { ranges: all, dropout: Some(Dropout { p: 0.2, seed: 1, rng_offset: 2 }) });
    }
}

/// On the CPU, what surrounds a linear is the operations one after another.
#[test]
fn with_what_surrounds_it() {
    let (cx, kind) = (Cx::cpu(), Gelu::Tanh);
    let p = affine(5, 3, &normal(1, 15), Some(&normal(2, 5)));
    let (x, r) = (tensor([4, 3], &normal(3, 12)), tensor([4, 5], &normal(4, 20)));
    let after = Epilogue { gelu: Some(kind), residual: Some(&r), keep: true };
    let (y, saved, u) = linear::forward_with(&cx, &x, &p, after).unwrap();
    let (plain, _) = linear::forward(&cx, &x, &p).unwrap();
    let (g, _) = gelu::forward(&cx, &plain, kind).unwrap();
    assert_eq!(values(&y), values(&add::forward(&cx, g, &r).unwrap()));
    let (_, v) = gelu::forward(&cx, &x, kind).unwrap();
    let before = BackwardEpilogue { gelu: Some((&v, kind)), sum: Some(&x) };
    let dx = linear::backward_with(&cx, &saved, &r, &p, before, None).unwrap();
    let back = linear::backward(&cx, &saved, &r, &p, None).unwrap();
    let back = gelu::backward(&cx, &v, &back, kind).unwrap();
    assert_eq!(values(&dx), values(&add::forward(&cx, back, &x).unwrap()));

    let p = LoraLinear { base: p, adapters: vec![None], module: 0 };
    let (again, saved, lora_u) = lora::forward_with(&cx, &x, &p, &Route::default(), after).unwrap();
    assert_eq!(values(&again), values(&y));
    let slopes = [u, lora_u].map(|u| values(&gelu::backward(&cx, &u.unwrap(), &r, kind).unwrap()));
    assert_eq!(slopes[0], slopes[1]);
    let lora_dx = lora::backward_with(&cx, &saved, &r, &p, &Route::default(), before, None).unwrap();
    assert_eq!(values(&lora_dx), values(&dx));
    let bare = linear::forward_with(&cx, &x, &p.base, Epilogue::default()).unwrap();
    assert_eq!(values(&bare.0), values(&plain));
    assert!(bare.2.is_none());
}
