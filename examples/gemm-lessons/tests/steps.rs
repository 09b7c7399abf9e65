//! Every step computes the same GEMM, whatever order its threads run in.

use gemm_lessons::{KERNELS, STEPS, gemm};
use pheye_tensor::{DType, Device, Gpu, Tensor};

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i + seed) * 7919 % 257) as f32 / 128.0 - 1.0).collect() // exact in bf16
}

#[test]
fn all_steps_agree_with_the_formula() {
    let (m, n, k) = (64, 128, 96);
    let (a, b) = (values(m * k, 1), values(n * k, 5));
    let exact = |i: usize, j: usize| -> f64 {
        a[i * k..][..k].iter().zip(&b[j * k..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    for kernel in STEPS {
        let [first, rest @ ..] = ["emulator", "emulator:reversed", "emulator:shuffled=3"].map(|device| {
            let gpu = Gpu::open(device).unwrap();
            gpu.load(&KERNELS).unwrap();
            let on = |shape: [usize; 2], values: &[f32]| {
                let bf16 = Tensor::from_f32(shape, values).unwrap().to_dtype(DType::Bf16).unwrap();
                bf16.to_device(&Device::Gpu(gpu.clone())).unwrap()
            };
            gemm(&gpu, kernel, &on([m, k], &a), &on([n, k], &b)).unwrap().to_vec_f32().unwrap()
        });
        assert!(rest.iter().all(|other| *other == first), "{kernel}: the order of the threads shows");
        for (at, c) in first.iter().enumerate() {
            let exact = exact(at / n, at % n);
            assert!((f64::from(*c) - exact).abs() < 1e-4, "{kernel} at {at}: {c}, exact is {exact}");
        }
    }
}
