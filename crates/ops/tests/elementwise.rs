//! GELU, sums, scaling and casts on every device, compared with their formulas.

mod common;

use common::upload;
use pheye_ops::Cx;
use pheye_ops::gelu::{self, Gelu};
use pheye_tensor::{DType, Device};
use pheye_testkit::gpu::download;
use pheye_testkit::{Formula, Ran, Real, gradcheck, plain, uniform};
use proptest::prelude::*;

const KINDS: [Gelu; 3] = [Gelu::Exact, Gelu::Tanh, Gelu::Quick];

struct Activation(Gelu);

impl Formula for Activation {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let f = match self.0 {
            Gelu::Exact => plain::gelu_exact,
            Gelu::Tanh => plain::gelu_tanh,
            Gelu::Quick => plain::gelu_quick,
        };
        inputs[0].iter().map(|&x| f(x).stored()).collect()
    }
}

fn run(device: &Device, dtype: DType, kind: Gelu, x: &[f32], dy: &[f32]) -> Ran {
    let cx = Cx::new(device.clone());
    let [x, dy] = [x, dy].map(|t| upload(device, dtype, [t.len()], t));
    let (y, saved) = gelu::forward(&cx, &x, kind).unwrap();
    let dx = gelu::backward(&cx, &saved, &dy, kind).unwrap();
    assert_eq!((y.dtype(), dx.dtype()), (dtype, dtype));
    Ran { y: download(&y), grads: vec![("x", download(&dx))] }
}

fn check(kind: Gelu, x: Vec<f32>) {
    gradcheck(&format!("gelu {kind:?}"), &Activation(kind), &[("x", x)], |i, dy| {
        run(&Device::Cpu, DType::F32, kind, &i[0], dy)
    });
}

#[test]
fn gelu_at_sizes_of_use() {
    for kind in KINDS {
        check(kind, (-120..=120).map(|i| i as f32 / 8.0).collect());
        check(kind, vec![-51.0, -47.0, -0.0, 1e-20, 89.0, 1e4]);
    }
}

proptest! {
    #![proptest_config(common::repeatable(32))]

    #[test]
    fn gelu_of_any_length(n in 0..200usize, seed: u64, wide in 0.1f32..20.0) {
        for kind in KINDS {
            // At least one element of ordinary size, which sets the scale of the tolerance.
            check(kind, uniform(seed, n, -wide, wide).into_iter().chain([1.0]).collect());
        }
    }
}

/// For large |x| the plain formulas are not finite, but the operations return the limits.
fn limits(device: &Device) -> Vec<Vec<f32>> {
    let of_kind = |kind| {
        let Ran { y, mut grads } = run(device, DType::F32, kind, &[-1e9, -200.0, 200.0, 1e9], &[1.0; 4]);
        let dx = grads.remove(0).1;
        let near = |x: &[f32], limits: [f32; 4]| x.iter().zip(limits).all(|(x, l)| (x - l).abs() < 1e-20);
        assert!(near(&y, [0.0, 0.0, 200.0, 1e9]), "{kind:?} {y:?}");
        assert!(near(&dx, [0.0, 0.0, 1.0, 1.0]), "{kind:?} {dx:?}");
        [y, dx]
    };
    KINDS.into_iter().flat_map(of_kind).collect()
}

#[test]
fn gelu_has_its_limits() {
    limits(&Device::Cpu);
}

/// The GPU kernels.
#[cfg(feature = "emulator")]
mod gpu {
    use pheye_ops::{Result, add, elementwise};
    use pheye_tensor::Tensor;
    use pheye_testkit::gpu::{bf16_values, on_all_orders, orders, round_bf16, upload_bf16, upload_f32};
    use pheye_testkit::{Rounded, gpucheck, normal};

    use super::*;

    const SIZES: [usize; 6] = [0, 1, 7, 8, 2048, 4099];
    const TYPES: [DType; 2] = [DType::Bf16, DType::F32];

    fn as_kept(dtype: DType, mut x: Vec<f32>) -> Vec<f32> {
        if dtype == DType::Bf16 {
            round_bf16(&mut x);
        }
        x
    }

    #[test]
    fn gelu_follows_its_formula() {
        for (kind, n) in KINDS.into_iter().flat_map(|k| SIZES.map(|n| (k, n))) {
            for dtype in TYPES {
                let x = as_kept(dtype, normal(1, n)).iter().map(|x| 3.0 * x).collect();
                let (f, inputs) = (Activation(kind), [("x", as_kept(dtype, x))]);
                let on = |device: &Device, i: &[Vec<f32>], dy: &[f32]| run(device, dtype, kind, &i[0], dy);
                let name = format!("gelu {kind:?} {dtype} {n}");
                match dtype {
                    DType::Bf16 => gpucheck::<Rounded<f32>>(&name, &f, &inputs, &["x"], on),
                    _ => gpucheck::<f32>(&name, &f, &inputs, &["x"], on),
                }
            }
        }
    }

    #[test]
    fn gelu_has_its_limits() {
        on_all_orders(limits);
    }

    /// A single rounded operation has exactly one correct result.
    #[test]
    fn sums_and_multiples_are_rounded_once() {
        for (n, dtype) in SIZES.into_iter().flat_map(|n| TYPES.map(|t| (n, t))) {
            let [a, b] = [1, 2].map(|seed| as_kept(dtype, normal(seed, n)));
            let sum = as_kept(dtype, a.iter().zip(&b).map(|(a, b)| a + b).collect());
            let multiple = as_kept(dtype, a.iter().map(|a| a * -0.7).collect());
            // In place, and to new memory if the old memory is shared.
            for shared in [false, true] {
                let ran = on_all_orders(|device| {
                    let cx = Cx::new(device.clone());
                    let [x, y, held] = [&a, &b, &a].map(|t| upload(device, dtype, [n], t));
                    let views = shared.then(|| [x.clone(), held.clone()]);
                    let sum = add::forward(&cx, x, &y).unwrap();
                    let multiple = add::scale(&cx, held, -0.7).unwrap();
                    views.iter().flatten().for_each(|view| assert_eq!(download(view), a));
                    vec![download(&sum), download(&multiple)]
                });
                assert_eq!(ran, [sum.clone(), multiple.clone()], "{dtype} {n} {shared}");
            }
        }
    }

    fn casts(device: &Device, x: &[f32]) -> Result<[Tensor; 2]> {
        let cx = Cx::new(device.clone());
        let narrow = elementwise::cast(&cx, &upload_f32(device, [x.len()], x), DType::Bf16)?;
        let back = elementwise::cast(&cx, &narrow, DType::F32)?;
        assert_eq!((narrow.dtype(), back.dtype()), (DType::Bf16, DType::F32));
        Ok([narrow, back])
    }

    #[test]
    fn casts_round() {
        for n in SIZES {
            let ran =
                on_all_orders(|device| casts(device, &normal(1, n)).unwrap().each_ref().map(download).into());
            assert_eq!(ran, [bf16_values(n, 1), bf16_values(n, 1)]);
        }
    }

    /// A view that is not aligned to 16 bytes takes another path through the kernels.
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

    /// Casts preserve infinities and NaN.
    #[test]
    fn a_cast_to_int8_is_an_error() {
        for device in orders() {
            let x = upload_f32(&device, [3], &[1.0; 3]);
            let error = elementwise::cast(&Cx::new(device), &x, DType::Int8).unwrap_err().to_string();
            assert!(error.contains("cast") && error.contains("int8"), "{error}");
        }
    }

    #[test]
    fn casts_of_extremes() {
        let odd = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 3.3e38, -3.4e38];
        let ran = on_all_orders(|device| vec![download(&casts(device, &odd).unwrap()[0])]);
        assert_eq!((ran[0][0], ran[0][1]), (f32::INFINITY, f32::NEG_INFINITY));
        assert!(ran[0][2].is_nan());
        assert_eq!(ran[0][3..], as_kept(DType::Bf16, odd.to_vec())[3..]);
    }
}
