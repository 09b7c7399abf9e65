//! A GEMM in five steps, one idea each; the README has what each gains.

use params::LessonGemm;
use pheye_tensor::{DType, Device, Gpu, Result, Tensor};

pheye_kernels::include_kernels!();

/// The kernels, from the plainest on.
pub const STEPS: [&str; 5] = ["gemm_1", "gemm_2", "gemm_3", "gemm_4", "gemm_5"];

/// c [m, n] = a [m, k] bᵀ for b [n, k], both bf16, by one of [`STEPS`]; m and n are multiples of 64, k of 32.
///
/// # Errors
/// When there is no memory, and on the emulator when the kernel has a fault.
pub fn gemm(gpu: &Gpu, kernel: &'static str, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (m, n, k) = (a.shape().rows(), b.shape().rows(), a.shape().cols());
    let c = Tensor::zeros_on(&Device::Gpu(gpu.clone()), [m, n], DType::F32)?;
    let mut l = gpu.launch(kernel)?;
    let (a, b) = (l.read(a.region()?), l.read(b.region()?));
    let p = LessonGemm { a, b, c: l.write(c.region()?), m: m as i32, n: n as i32, k: k as i32 };
    let [rows, cols, _] = l.spec().tile;
    l.run([n / cols, m / rows, 1], &p)?;
    Ok(c)
}
