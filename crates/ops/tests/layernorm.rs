//! LayerNorm, also with a residual gradient and with LoRA's down projection, on every device, compared with its
//! formula.

mod common;

use common::{added, grad_of, param, place, product, sum, tensor, train_all, upload, values};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::Linear;
use pheye_ops::{Cx, Error, add, linear};
use pheye_tensor::{DType, Device};
use pheye_testkit::gpu::download;
use pheye_testkit::{Formula, Ran, Real, gradcheck, normal};
use proptest::prelude::*;

/// x [rows, d], weight and bias, and optionally the rows of A for the down projection.
struct Norm {
    d: usize,
    /// Whether x is added to the output, as by the residual connection around the norm.
    residual: bool,
}

impl Formula for Norm {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let [x, weight, bias, a @ ..] = inputs else { unreachable!() };
        let n = T::of(self.d as f64);
        let row = |x: &[T]| {
            // The unfused form stores the gradient of the norm before adding that of the residual.
            let x: Vec<T> = x.iter().map(|x| x.stored()).collect();
            let mean = sum(x.iter().copied()) / n;
            let var = sum(x.iter().map(|&x| (x - mean) * (x - mean))) / n;
            let rstd = T::of(1.0) / (var + T::of(1e-5)).sqrt();
            let row = x.iter().zip(weight).zip(bias);
            row.map(|((&x, &w), &b)| ((x - mean) * rstd * w + b).stored()).collect::<Vec<T>>()
        };
        let mut y: Vec<T> = x.chunks(self.d).flat_map(row).collect();
        if let [a] = a {
            y.extend(product(&y, a, self.d).into_iter().map(T::stored));
        }
        if self.residual {
            y.extend(x);
        }
        y
    }
}

fn layer(d: usize) -> LayerNorm {
    let (weight, bias) = (param("weight", [d], &normal(2, d)), param("bias", [d], &normal(3, d)));
    LayerNorm { weight, bias, eps: 1e-5 }
}

fn inputs(x: Vec<f32>, d: usize) -> [(&'static str, Vec<f32>); 3] {
    [("x", x), ("weight", normal(2, d)), ("bias", normal(3, d))]
}

/// Forward and backward on a device. `with_dx` is optional because checking dx of large inputs on the CPU is slow.
fn run(device: &Device, dtype: DType, d: usize, i: &[Vec<f32>], dy: &[f32], with_dx: bool) -> Ran {
    let (cx, mut p, rows) = (Cx::new(device.clone()), layer(d), dy.len() / d);
    let mut grads = place(device, p.params_mut(), |_| true);
    let [x, dy] = [&i[0], dy].map(|t| upload(device, dtype, [rows, d], t));
    let (y, saved) = layernorm::forward(&cx, &x, &p).unwrap();
    let dx = layernorm::backward(&cx, &saved, &dy, &p, Some(&mut grads)).unwrap();
    assert_eq!((y.dtype(), dx.dtype()), (dtype, dtype));
    let mut all = vec![("weight", added(&grads, &p.weight)), ("bias", added(&grads, &p.bias))];
    all.extend(with_dx.then(|| ("x", download(&dx))));
    Ran { y: download(&y), grads: all }
}

fn check(rows: usize, d: usize, with_dx: bool) {
    gradcheck("layernorm", &Norm { d, residual: false }, &inputs(normal(1, rows * d), d), |i, dy| {
        run(&Device::Cpu, DType::F32, d, i, dy, with_dx)
    });
}

#[test]
fn at_sizes_of_use() {
    check(6, 64, true);
    check(300, 64, false);
}

proptest! {
    #![proptest_config(common::repeatable(32))]

    #[test]
    fn any_shape(rows in 0..12usize, d in 1..70usize) {
        check(rows, d, true);
    }
}

const ROWS: usize = 5;
const D: usize = 12;

/// On the CPU the fused forms are bit-identical to the unfused ones.
#[test]
fn residuals() {
    let (cx, mut p) = (Cx::cpu(), layer(D));
    let mut grads = train_all(p.params_mut());
    let [x, dy, dres] = [1, 5, 6].map(|seed| tensor([ROWS, D], &normal(seed, ROWS * D)));
    let (_, saved) = layernorm::forward(&cx, &x, &p).unwrap();
    let dx = layernorm::backward_residual(&cx, &saved, &dy, dres.clone(), &p, Some(&mut grads)).unwrap();
    let fused = [values(&dx), grad_of(&mut grads, &p.weight)];

    grads.clear().unwrap();
    let dx = layernorm::backward(&cx, &saved, &dy, &p, Some(&mut grads)).unwrap();
    let dx = add::forward(&cx, dres, &dx).unwrap();
    assert_eq!(fused, [values(&dx), grad_of(&mut grads, &p.weight)]);
}

#[test]
fn lora_down() {
    let (cx, p) = (Cx::cpu(), layer(D));
    let x = tensor([ROWS, D], &normal(1, ROWS * D));
    let a = tensor([3, D], &normal(7, 3 * D));
    let down = Linear { weight: param("A", [3, D], &values(&a)), bias: None };
    let out = layernorm::forward_lora_down(&cx, &x, &p, &a).unwrap();
    let (y, _) = layernorm::forward(&cx, &x, &p).unwrap();
    let (s, _) = linear::forward(&cx, &y, &down).unwrap();
    assert_eq!([&out.y, &out.s].map(values), [&y, &s].map(values));
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let (cx, p) = (Cx::cpu(), layer(D));
    let (x, small) = (tensor([ROWS, D], &[0.0; ROWS * D]), tensor([1, D], &[0.0; D]));
    let (_, saved) = layernorm::forward(&cx, &x, &p).unwrap();
    let faults = [
        layernorm::backward_residual(&cx, &saved, &x, small.clone(), &p, None).err(),
        layernorm::forward_lora_down(&cx, &x, &p, &tensor([2, 5], &[0.0; 10])).err(),
    ];
    for fault in faults {
        assert!(matches!(fault, Some(Error::Shapes { op: "layernorm", .. })), "{fault:?}");
    }
}

/// The GPU kernels.
#[cfg(feature = "emulator")]
mod gpu {
    use pheye_testkit::gpu::{bf16_values, on_all_orders, orders, upload_bf16};
    use pheye_testkit::{BEFORE, Expected, Rounded, Rule, cases, gpucheck};

    use super::*;

    /// Widths for each kernel, with and without 16-byte accesses, and more rows than the blocks of a launch process at
    /// once.
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

    #[test]
    fn forward_and_backward_of_fixed_and_random_shapes() {
        // With fewer columns the plain formula is sometimes exact by chance.
        let random = cases(8).map(|mut draw| [draw.size(70), 15 + draw.size(2100)]);
        for [rows, d] in SHAPES.into_iter().chain(random) {
            let (formula, inputs) = (Norm { d, residual: false }, inputs(bf16_values(rows * d, 1), d));
            let on =
                |dtype| move |device: &Device, i: &[Vec<f32>], dy: &[f32]| run(device, dtype, d, i, dy, true);
            let name = format!("layernorm [{rows}, {d}]");
            gpucheck::<Rounded<f32>>(&name, &formula, &inputs, &["x"], on(DType::Bf16));
            gpucheck::<f32>(&format!("{name} in f32"), &formula, &inputs, &["x"], on(DType::F32));
        }
    }

    #[test]
    fn the_residual_gradient_is_that_of_the_unfused_form() {
        for ([rows, d], dtype) in SHAPES.into_iter().flat_map(|s| [DType::Bf16, DType::F32].map(|t| (s, t))) {
            let [x, dy, dres] = [1, 4, 6].map(|seed| bf16_values(rows * d, seed));
            let run = |device: &Device, held: bool| {
                let (cx, mut p) = (Cx::new(device.clone()), layer(d));
                place(device, p.params_mut(), |_| false);
                let [x, dy, dres] = [&x, &dy, &dres].map(|t| upload(device, dtype, [rows, d], t));
                let (_, saved) = layernorm::forward(&cx, &x, &p).unwrap();
                let view = held.then(|| dres.clone());
                let dx = layernorm::backward_residual(&cx, &saved, &dy, dres, &p, None).unwrap();
                (vec![download(&dx)], view.as_ref().map(download))
            };
            let ran = on_all_orders(|device| run(device, false).0);
            let (again, held) = run(&orders()[0], true);
            assert_eq!((&again, held), (&ran, Some(dres.clone())), "in place and not");

            let (formula, inputs) = (Norm { d, residual: true }, inputs(x.clone(), d));
            let both = [dy, dres].concat();
            let expected = match dtype {
                DType::Bf16 => Expected::of::<Rounded<f32>>(&formula, &inputs, &["x"], &both),
                _ => Expected::of::<f32>(&formula, &inputs, &["x"], &both),
            };
            let name = format!("layernorm with residual [{rows}, {d}] {dtype}");
            expected.gradient(Rule::GRADIENT, &name, "x", &ran[0]).check();
        }
    }

    /// A view that is not aligned to 16 bytes gives the result of an aligned copy, up to the order of the sums.
    #[test]
    fn rows_off_a_16_byte_boundary() {
        let (rows, d) = (3, 16);
        let values = bf16_values(rows * d + 3, 1);
        let ran = on_all_orders(|device| {
            let (cx, mut p) = (Cx::new(device.clone()), layer(d));
            place(device, p.params_mut(), |_| false);
            let x = upload_bf16(device, [rows * d + 3], &values).view(3, [rows, d]).unwrap();
            let (y, saved) = layernorm::forward(&cx, &x, &p).unwrap();
            let dx = layernorm::backward_residual(&cx, &saved, &y, x.clone(), &p, None).unwrap();
            vec![download(&y), download(&dx)]
        });
        let x = &values[3..];
        let (formula, inputs) = (Norm { d, residual: true }, inputs(x.to_vec(), d));
        let dy = [&ran[0], x].concat();
        let expected = Expected::of::<Rounded<f32>>(&formula, &inputs, &["x"], &dy);
        // The residual gradient is exact.
        expected.output(Rule::OUTPUT, "y", &[&ran[0], x].concat()).check();
        expected.gradient(Rule::GRADIENT, "off a boundary", "x", &ran[1]).check();
    }

    #[test]
    fn nothing_comes_of_no_rows() {
        on_all_orders(|device| {
            let (cx, mut p) = (Cx::new(device.clone()), layer(16));
            let mut grads = place(device, p.params_mut(), |_| true);
            let x = upload_bf16(device, [0, 16], &[]);
            let (y, saved) = layernorm::forward(&cx, &x, &p).unwrap();
            let dx = layernorm::backward(&cx, &saved, &x, &p, Some(&mut grads)).unwrap();
            assert_eq!((y.shape().dims(), dx.shape().dims()), (&[0, 16][..], &[0, 16][..]));
            assert_eq!(added(&grads, &p.weight), vec![BEFORE; 16]);
            vec![]
        });
    }

    /// Compares y, and S = y·Aᵀ computed from the stored y, with the formula.
    #[test]
    fn lora_down_rides_on_the_norm_for_fixed_and_random_shapes() {
        let shapes = [[1, 8, 1], [17, 1280, 16], [33, 64, 48], [5, 1272, 24], [100, 24, 40], [16, 48, 48]];
        let random =
            cases(6).map(|mut draw| [draw.size(70), 8 * (1 + draw.below(160)), 8 * (1 + draw.below(6))]);
        for [rows, d, n] in shapes.into_iter().chain(random) {
            let (x, a) = (bf16_values(rows * d, 1), bf16_values(n * d, 7));
            let ran = on_all_orders(|device| {
                let (cx, mut p) = (Cx::new(device.clone()), layer(d));
                place(device, p.params_mut(), |_| false);
                let [x, a] = [(&x, rows), (&a, n)].map(|(t, rows)| upload_bf16(device, [rows, d], t));
                let out = layernorm::forward_lora_down(&cx, &x, &p, &a).unwrap();
                assert_eq!(out.s.shape().dims(), [rows, n]);
                vec![download(&out.y), download(&out.s)]
            });
            let values = [x, normal(2, d), normal(3, d), a];
            let formula = Norm { d, residual: false };
            let truth = formula.eval(&values.each_ref().map(|x| pheye_testkit::gpu::wide(x)));
            let narrow = |x: &Vec<f32>| x.iter().map(|&x| Rounded(x)).collect::<Vec<_>>();
            let plain: Vec<f32> = formula.eval(&values.each_ref().map(narrow)).iter().map(|x| x.0).collect();
            let ((y64, s64), (y32, s32)) = (truth.split_at(rows * d), plain.split_at(rows * d));
            let name = format!("layernorm and A [{rows}, {d}] to {n}");
            Rule::OUTPUT.compare(&name, &ran[0], y32, y64).check();
            Rule::OUTPUT.compare(format!("{name} S"), &ran[1], s32, s64).check();
        }
    }
}
