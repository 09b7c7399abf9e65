//! A fusion into Pheye's GEMM: the kernel is `kernels/softcap.cu`, a functor and a line that names it.
use params::{CappedGemm, Gemm};
use pheye_tensor::{DType, Device, Gpu, Result, Tensor};

pheye_kernels::include_kernels!();

/// y [m, n] f32 = cap·tanh((x Wᵀ + bias) / cap) for x [m, k] and w [n, k] in bf16, k a multiple of 8, and bias [n].
pub fn softcapped(gpu: &Gpu, x: &Tensor, w: &Tensor, bias: &Tensor, cap: f32) -> Result<Tensor> {
    let (m, n, k) = (x.shape().rows(), w.shape().rows(), x.shape().cols());
    let y = Tensor::zeros_on(&Device::Gpu(gpu.clone()), [m, n], DType::F32)?;
    let mut l = gpu.launch("gemm_softcap")?;
    let (a, b, bias) = (l.read(x.region()?), l.read(w.region()?), l.read(bias.region()?));
    let (m_, n_, k_) = (m as i32, n as i32, k as i32);
    let sizes = Gemm { m: m_, n: n_, k: k_, lda: k_, ldb: k_, ldc: n_, splits: 1, batch: 1, ..Default::default() };
    let gemm = Gemm { a, b, bias, c: l.write(y.region()?), flags: 1, alpha: 1.0, ..sizes }; // 1: c is f32
    let [rows, cols, _] = l.spec().tile;
    l.run([m.div_ceil(rows) * n.div_ceil(cols), 1, 1], &CappedGemm { gemm, cap })?;
    Ok(y)
}

#[test]
fn the_cap_is_applied_to_the_sum_with_its_bias() {
    let gpu = Gpu::open("emulator").unwrap();
    gpu.load(&KERNELS).unwrap();
    let (m, n, k, cap) = (70, 40, 64, 2.0);
    let values = |n: usize, seed: usize| (0..n).map(|i| ((i + seed) * 31 % 17) as f32 / 8.0 - 1.0).collect::<Vec<_>>();
    let (x, w, bias) = (values(m * k, 1), values(n * k, 2), values(n, 3));
    let on = |shape: pheye_tensor::Shape, v: &[f32], dtype| {
        Tensor::from_f32(shape, v).unwrap().to_dtype(dtype).unwrap().to_device(&Device::Gpu(gpu.clone())).unwrap()
    };
    let (tx, tw) = (on([m, k].into(), &x, DType::Bf16), on([n, k].into(), &w, DType::Bf16));
    let y = softcapped(&gpu, &tx, &tw, &on([n].into(), &bias, DType::F32), cap).unwrap().to_vec_f32().unwrap();
    for (at, y) in y.iter().enumerate() {
        let (i, j) = (at / n, at % n);
        let sum: f32 = (0..k).map(|c| x[i * k + c] * w[j * k + c]).sum::<f32>() + bias[j];
        assert!((y - cap * (sum / cap).tanh()).abs() < 1e-4, "{at}: {y}");
    }
}
