//! GELU, sums, scaling, casts and fills on the emulator, in every order of its threads, against their formulas.
#![cfg(feature = "emulator")]

use pheye_ops::gelu::{self, Gelu};
use pheye_ops::{Cx, add, elementwise};
use pheye_tensor::{DType, Device, Tensor};
use pheye_testkit::gpu::{
    assert_rule, bf16_values, download, on_all_orders, round_bf16, upload_bf16, upload_f32,
};
use pheye_testkit::{Dual, Real, Rule, normal, plain};

const SIZES: [usize; 6] = [0, 1, 7, 8, 2048, 4099];

fn gelu_of<T: Real>(kind: Gelu, x: T) -> T {
    match kind {
        Gelu::Exact => plain::gelu_exact(x),
        Gelu::Tanh => plain::gelu_tanh(x),
        Gelu::Quick => plain::gelu_quick(x),
    }
}

fn gelu_and_slope<T: Real>(kind: Gelu, x: f32) -> (T, T) {
    let y = gelu_of(kind, Dual { v: T::of(x.into()), d: T::of(1.0) });
    (y.v, y.d)
}

type Upload = fn(&Device, [usize; 1], &[f32]) -> Tensor;
const UPLOADS: [(DType, Upload); 2] = [(DType::Bf16, upload_bf16), (DType::F32, upload_f32)];

fn inputs(dtype: DType, n: usize, seed: u64) -> Vec<f32> {
    match dtype {
        DType::Bf16 => bf16_values(n, seed),
        DType::F32 | DType::Int8 => normal(seed, n),
    }
}

fn as_kept(dtype: DType, mut x: Vec<f32>) -> Vec<f32> {
    if dtype == DType::Bf16 {
        round_bf16(&mut x);
    }
    x
}

#[test]
fn gelu_follows_its_formula() {
    for (kind, n) in [Gelu::Exact, Gelu::Tanh, Gelu::Quick].into_iter().flat_map(|k| SIZES.map(|n| (k, n))) {
        for (dtype, upload) in UPLOADS {
            let scaled = inputs(dtype, n, 1).iter().map(|x| 3.0 * x).collect();
            let (x, dy) = (as_kept(dtype, scaled), inputs(dtype, n, 2));
            let ran = on_all_orders(|device| {
                let cx = Cx::new(device.clone());
                let (y, saved) = gelu::forward(&cx, &upload(device, [n], &x), kind).unwrap();
                let dx = gelu::backward(&cx, &saved, &upload(device, [n], &dy), kind).unwrap();
                assert_eq!((y.dtype(), dx.dtype()), (dtype, dtype));
                vec![download(&y), download(&dx)]
            });
            let truth: Vec<(f64, f64)> = x.iter().map(|&x| gelu_and_slope(kind, x)).collect();
            let plain: Vec<(f32, f32)> = x.iter().map(|&x| gelu_and_slope(kind, x)).collect();
            let name = format!("gelu {kind:?} {dtype} {n}");
            let y64: Vec<f64> = truth.iter().map(|t| t.0).collect();
            let y32 = as_kept(dtype, plain.iter().map(|t| t.0).collect());
            assert_rule(&ran[0], &y64, &y32, Rule::OUTPUT, &name);
            let dx64: Vec<f64> = truth.iter().zip(&dy).map(|(t, &dy)| t.1 * f64::from(dy)).collect();
            let dx32 = as_kept(dtype, plain.iter().zip(&dy).map(|(t, &dy)| t.1 * dy).collect());
            assert_rule(&ran[1], &dx64, &dx32, Rule::GRADIENT, &format!("{name} backward"));
        }
    }
}

/// One operation of the element type's arithmetic has one right answer.
#[test]
fn sums_and_multiples_are_rounded_once() {
    for (n, (dtype, upload)) in SIZES.into_iter().flat_map(|n| UPLOADS.map(|u| (n, u))) {
        let (a, b) = (inputs(dtype, n, 1), inputs(dtype, n, 2));
        let sum = as_kept(dtype, a.iter().zip(&b).map(|(a, b)| a + b).collect());
        let multiple = as_kept(dtype, a.iter().map(|a| a * -0.7).collect());
        // In place, and into new memory when the old is viewed.
        for shared in [false, true] {
            let ran = on_all_orders(|device| {
                let cx = Cx::new(device.clone());
                let (x, y) = (upload(device, [n], &a), upload(device, [n], &b));
                let views = shared.then(|| x.clone());
                let sum = add::forward(&cx, x, &y).unwrap();
                let held = upload(device, [n], &a);
                let more = shared.then(|| held.clone());
                let multiple = add::scale(&cx, held, -0.7).unwrap();
                for view in views.iter().chain(&more) {
                    assert_eq!(download(view), a);
                }
                vec![download(&sum), download(&multiple)]
            });
            assert_eq!(ran, [sum.clone(), multiple.clone()], "{dtype} {n} {shared}");
        }
    }
}

#[test]
fn casts_round() {
    for n in SIZES {
        let (exact, rounded) = (normal(1, n), bf16_values(n, 1));
        let ran = on_all_orders(|device| {
            let cx = Cx::new(device.clone());
            let narrow = elementwise::cast(&cx, &upload_f32(device, [n], &exact), DType::Bf16).unwrap();
            let back = elementwise::cast(&cx, &narrow, DType::F32).unwrap();
            assert_eq!((narrow.dtype(), back.dtype()), (DType::Bf16, DType::F32));
            vec![download(&narrow), download(&back)]
        });
        assert_eq!(ran, [rounded.clone(), rounded]);
    }
}

/// A view that starts within 16 bytes takes another path through the kernels.
#[test]
fn tensors_off_a_16_byte_boundary() {
    let (n, values) = (77, bf16_values(80, 1));
    let ran = on_all_orders(|device| {
        let (cx, x) = (Cx::new(device.clone()), upload_bf16(device, [80], &values).view(3, [n]).unwrap());
        let y = add::forward(&cx, x.clone(), &x).unwrap();
        let z = elementwise::cast(&cx, &x, DType::F32).unwrap();
        vec![download(&y), download(&z)]
    });
    let x = &values[3..80];
    assert_eq!(ran, [x.iter().map(|x| 2.0 * x).collect(), x.to_vec()]);
}

/// Values that no formula reaches: infinities and NaN pass through, and far out GELU has its limits.
#[test]
fn extremes() {
    let ends = [-1e9, -200.0, 200.0, 1e9];
    for kind in [Gelu::Exact, Gelu::Tanh, Gelu::Quick] {
        let ran = on_all_orders(|device| {
            let (cx, x) = (Cx::new(device.clone()), upload_f32(device, [4], &ends));
            let (y, saved) = gelu::forward(&cx, &x, kind).unwrap();
            let dx = gelu::backward(&cx, &saved, &upload_f32(device, [4], &[1.0; 4]), kind).unwrap();
            vec![download(&y), download(&dx)]
        });
        let near = |x: &[f32], limits: [f32; 4]| x.iter().zip(limits).all(|(x, l)| (x - l).abs() < 1e-20);
        assert!(
            near(&ran[0], [0.0, 0.0, 200.0, 1e9]) && near(&ran[1], [0.0, 0.0, 1.0, 1.0]),
            "{kind:?} {ran:?}"
        );
    }
    let odd = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 3.3e38, -3.4e38];
    let ran = on_all_orders(|device| {
        vec![download(
            &elementwise::cast(&Cx::new(device.clone()), &upload_f32(device, [5], &odd), DType::Bf16)
                .unwrap(),
        )]
    });
    assert_eq!((ran[0][0], ran[0][1]), (f32::INFINITY, f32::NEG_INFINITY));
    assert!(ran[0][2].is_nan());
    let mut rounded = odd.to_vec();
    round_bf16(&mut rounded);
    assert_eq!(ran[0][3..], rounded[3..]);
}
