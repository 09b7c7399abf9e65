//! GEMM features that no operation combines: a strided batch, alpha, f32 results.

use pheye_tensor::{DType, Device};
use pheye_testkit::Rule;
use pheye_testkit::gpu::{assert_rule, bf16_values, download, on_all_orders, upload_bf16};

use super::{Batch, Gemm, Layout, MatOperand, Output};
use crate::Cx;

#[test]
fn a_batch_with_a_scale_and_f32_results() {
    // One tile, several tiles, and a shape small enough for split-K.
    for [batch, m, n, k] in [[3, 5, 16, 24], [2, 70, 72, 40], [2, 9, 8, 512]] {
        let (a, b) = (bf16_values(batch * m * k, 1), bf16_values(batch * n * k, 2));
        let out = on_all_orders(|device| {
            let cx = Cx::new(device.clone());
            let Device::Gpu(gpu) = device else { panic!("{device} is no GPU") };
            let (a, b) = (upload_bf16(device, [batch * m, k], &a), upload_bf16(device, [batch * n, k], &b));
            let c = cx.empty_f32([batch * m, n]).unwrap();
            let to = Output { region: c.region().unwrap(), ld: n, dtype: DType::F32, add: false };
            let one = Gemm::new(
                Layout::Nt,
                [m, n, k],
                MatOperand::of(&a).unwrap(),
                MatOperand::of(&b).unwrap(),
                to,
            );
            let strides = [m * k, n * k, m * n];
            Gemm { alpha: 0.5, batch: Some(Batch { count: batch, strides }), ..one }.run(&cx, gpu).unwrap();
            vec![download(&c)]
        });
        let (mut truth, mut naive) = (Vec::new(), Vec::new());
        for i in 0..batch * m {
            for j in 0..n {
                let (x, y) = (&a[i * k..][..k], &b[(i / m * n + j) * k..][..k]);
                truth.push(0.5 * x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>());
                naive.push(0.5 * x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>());
            }
        }
        assert_rule(&out[0], &truth, &naive, Rule::OUTPUT, &format!("{batch} of {m} x {n} x {k}"));
    }
}
