//! Linear, also with fused epilogues, on every device, compared with its formula.

mod common;

use common::{added, linear as affine, place, product, tensor, upload, values};
use pheye_ops::gelu::{self, Gelu};
use pheye_ops::linear::{self, BackwardEpilogue, Epilogue};
use pheye_ops::{Cx, Error, add};
use pheye_tensor::{DType, Device};
use pheye_testkit::gpu::{download, round_bf16};
use pheye_testkit::{BEFORE, Formula, Ran, Real, gradcheck, normal};
use proptest::prelude::*;

/// x [m, k], W [n, k], and an optional bias.
struct Affine {
    k: usize,
}

impl Formula for Affine {
    fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
        let n = x[1].len() / self.k;
        let biased = |(i, y): (usize, T)| x.get(2).map_or(y, |b| y + b[i % n]).stored();
        product(&x[0], &x[1], self.k).into_iter().enumerate().map(biased).collect()
    }
}

/// Forward and backward, with the gradients of the parameters if they are trained. On the CPU a frozen weight is bf16.
fn run(device: &Device, dtype: DType, k: usize, i: &[Vec<f32>], dy: &[f32], trained: bool) -> Ran {
    let (cx, m, n) = (Cx::new(device.clone()), i[0].len() / k, i[1].len() / k);
    let mut p = affine(n, k, &i[1], i.get(2).map(|b| &b[..]));
    let mut grads = place(device, p.params_mut(), |_| trained);
    if let (Device::Cpu, false) = (device, trained) {
        p.weight.value = p.weight.value.to_dtype(DType::Bf16).unwrap();
    }
    let (x, dy) = (upload(device, dtype, [m, k], &i[0]), upload(device, dtype, [m, n], dy));
    let (y, saved) = linear::forward(&cx, &x, &p).unwrap();
    let dx = linear::backward(&cx, &saved, &dy, &p, Some(&mut grads)).unwrap();
    let mut all = vec![("x", download(&dx))];
    if trained {
        all.push(("weight", added(&grads, &p.weight)));
        all.extend(p.bias.as_ref().map(|b| ("bias", added(&grads, b))));
        linear::backward_params(&cx, &saved, &dy, &p, Some(&mut grads)).unwrap();
        let start = if let Device::Cpu = device { 0.0 } else { BEFORE };
        for (p, (name, once)) in p.params().zip(&all[1..]) {
            let near = |(a, b): (&f32, &f32)| (a + start - 2.0 * b).abs() <= 1e-5 * (1.0 + b.abs());
            assert!(
                added(&grads, p).iter().zip(once).all(near),
                "{name}: without dx the same is added again"
            );
        }
    } else {
        assert_eq!(grads.table.len(), 0, "no gradients of frozen parameters");
    }
    Ran { y: download(&y), grads: all }
}

/// On the CPU, optionally with W in bf16.
fn check(m: usize, k: usize, n: usize, half: bool) {
    let mut w = normal(2, n * k);
    if half {
        round_bf16(&mut w);
    }
    let inputs = [("x", normal(1, m * k)), ("weight", w), ("bias", normal(3, n))];
    gradcheck("linear", &Affine { k }, &inputs, |i, dy| run(&Device::Cpu, DType::F32, k, i, dy, !half));
}

#[test]
fn f32_weights() {
    check(7, 19, 18, false);
}

#[test]
fn bf16_weights() {
    check(7, 19, 18, true);
}

proptest! {
    #![proptest_config(common::repeatable(24))]

    #[test]
    fn any_shape(m in 1usize..20, k in 1usize..40, n in 1usize..40, half: bool) {
        check(m, k, n, half);
    }
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
}

/// Runs on `device`.
fn refuses_a_residual_of_another_shape(device: &Device) {
    let (cx, mut p) = (Cx::new(device.clone()), affine(3, 2, &[1.0; 6], None));
    place(device, p.params_mut(), |_| false);
    let dtype = if let Device::Cpu = device { DType::F32 } else { DType::Bf16 };
    let [x, r] = [(); 2].map(|()| upload(device, dtype, [4, 2], &[1.0; 8]));
    let after = Epilogue { residual: Some(&r), ..Epilogue::default() };
    let fault = linear::forward_with(&cx, &x, &p, after).unwrap_err();
    assert!(matches!(fault, Error::Shapes { op: "linear", left_name: "residual", .. }), "{fault}");
}

#[test]
fn a_residual_of_another_shape_is_an_error() {
    refuses_a_residual_of_another_shape(&Device::Cpu);
}

/// On the CPU the epilogue is bit-identical to separate operations.
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

    let bare = linear::forward_with(&cx, &x, &p, Epilogue::default()).unwrap();
    assert_eq!(values(&bare.0), values(&plain));
    assert!(bare.2.is_none());
    assert_eq!(
        values(&u.unwrap().again(&cx, kind).unwrap()),
        values(&gelu::forward(&cx, &plain, kind).unwrap().0)
    );
}

/// The GPU kernels.
#[cfg(feature = "emulator")]
mod gpu {
    use common::transpose;
    use pheye_testkit::gpu::{bf16_values, on_all_orders, orders, upload_bf16};
    use pheye_testkit::{Expected, Rounded, Rule, cases, gpucheck, plain};

    use super::*;

    /// y, dx, dW and db for x [m, k] and W [n, k].
    fn check(m: usize, k: usize, n: usize, trained: bool, bias: bool) {
        let mut inputs = vec![("x", bf16_values(m * k, 1)), ("weight", bf16_values(n * k, 2))];
        inputs.extend(bias.then(|| ("bias", bf16_values(n, 3))));
        let name = format!("linear of {m} x {k} x {n}");
        gpucheck::<Rounded<f32>>(&name, &Affine { k }, &inputs, &["x"], |device, i, dy| {
            run(device, DType::Bf16, k, i, dy, trained)
        });
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

    fn activate<T: Real>(kind: Gelu, x: T) -> T {
        match kind {
            Gelu::Exact => plain::gelu_exact(x),
            Gelu::Tanh => plain::gelu_tanh(x),
            Gelu::Quick => plain::gelu_quick(x),
        }
    }

    /// The forward epilogue: gelu(u) + r for u = x Wᵀ + b, as a function of x, W, b, r and a summand of u, whose
    /// gradient is gelu′ at the saved u.
    struct After {
        k: usize,
        kind: Gelu,
    }

    impl Formula for After {
        fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
            let u = Affine { k: self.k }.eval(&x[..3]);
            let y = u.iter().zip(&x[4]).zip(&x[3]);
            y.map(|((&u, &more), &r)| (activate(self.kind, u + more).stored() + r).stored()).collect()
        }
    }

    /// The backward epilogue: gelu(v) Wᵀ and v itself, as functions of v and W, that is a linear after an activation,
    /// with a residual connection around both.
    struct Before {
        k: usize,
        kind: Gelu,
    }

    impl Formula for Before {
        fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
            let g: Vec<T> = x[0].iter().map(|&v| activate(self.kind, v.stored()).stored()).collect();
            let mut y = Affine { k: self.k }.eval(&[g, x[1].clone()]);
            y.extend(&x[0]);
            y
        }
    }

    /// y = gelu(x Wᵀ + b) + r with u saved, and dx = (dy W) gelu'(v) + r of the linear in the other direction.
    fn check_fused(m: usize, k: usize, n: usize, kind: Gelu) {
        let (x, w, b, r) =
            (bf16_values(m * k, 1), bf16_values(n * k, 2), bf16_values(n, 3), bf16_values(m * n, 4));
        let v = bf16_values(m * n, 5);
        let w_t = transpose(&w, k);
        let out = on_all_orders(|device| {
            let cx = &Cx::new(device.clone());
            let mut p = affine(n, k, &w, Some(&b));
            let mut back = affine(k, n, &w_t, None);
            place(device, p.params_mut(), |_| false);
            place(device, back.params_mut(), |_| false);
            let up = |cols: usize, x: &[f32]| upload_bf16(device, [m, cols], x);
            let (x, r) = (up(k, &x), up(n, &r));
            let after = Epilogue { gelu: Some(kind), residual: Some(&r), keep: true };
            let (y, _, u) = linear::forward_with(cx, &x, &p, after).unwrap();
            let u = gelu::backward(cx, &u.unwrap(), &up(n, &vec![1.0; m * n]), kind).unwrap();
            let (again, _, none) =
                linear::forward_with(cx, &x, &p, Epilogue { keep: false, ..after }).unwrap();
            assert!(none.is_none() && download(&again) == download(&y));
            let (_, v) = gelu::forward(cx, &up(n, &v), kind).unwrap();
            let (_, saved) = linear::forward(cx, &up(n, &vec![0.0; m * n]), &back).unwrap();
            let before = BackwardEpilogue { gelu: Some((&v, kind)), sum: Some(&r) };
            let dx = linear::backward_with(cx, &saved, &x, &back, before, None).unwrap();
            vec![download(&y), download(&u), download(&dx)]
        });
        let name = format!("fused linear of {m} x {k} x {n}");
        let (dy, zero) = ([&x[..], &r].concat(), vec![0.0; m * n]);
        let inputs = [("x", x), ("weight", w), ("bias", b), ("r", r), ("more", zero)];
        let ones = vec![1.0; m * n];
        let after = Expected::of::<Rounded<f64>>(&After { k, kind }, &inputs, &["more"], &ones);
        after.output(Rule::OUTPUT, &name, &out[0]).check();
        after.gradient(Rule::GRADIENT, &name, "more", &out[1]).check();
        let inputs = [("v", v), ("weight", w_t)];
        let before = Expected::of::<Rounded<f64>>(&Before { k: n, kind }, &inputs, &["v"], &dy);
        before.gradient(Rule::GRADIENT, &name, "v", &out[2]).check();
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
        refuses_a_residual_of_another_shape(&orders()[0]);
    }

    /// Several linears of one x in one call: bit-identical to each alone, and fewer launches where fusing them pays.
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
                let _ = place(device, layers.iter_mut().flat_map(|l| l.params_mut()).collect(), |_| false);
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
}
