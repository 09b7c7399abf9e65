//! LayerNorm and the linear behind it as one kernel: y = n(x) Wᵀ, all f32 on a GPU that has [`KERNELS`] loaded.
//! [`params`] is made from the structs in `kernels/`: a region that is written cannot take the place of one that is read.
//!
//! ```compile_fail
//! fn swapped(l: &mut pheye_kernels::Launch, x: pheye_kernels::Region, y: pheye_kernels::Region) {
//!     let p = own_kernel::params::NormLinear { x: l.write(y), y: l.read(x), ..Default::default() };
//! }
//! ```
use params::NormLinear;
use pheye_tensor::{DType, Device, Gpu, Result, Tensor};

pheye_kernels::include_kernels!();

fn sizes(x: &Tensor, w: &Tensor) -> (usize, usize, NormLinear) {
    let (rows, k, m) = (x.shape().rows(), x.shape().cols(), w.shape().rows());
    (rows, m, NormLinear { rows: rows as i32, k: k as i32, m: m as i32, ..Default::default() })
}

/// y [rows, m] and stats [rows, 2] of x [rows, k] and w [m, k] by `kernel`, which is `norm_linear_fwd` but in a test.
pub fn forward(gpu: &Gpu, kernel: &'static str, x: &Tensor, w: &Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, m, p) = sizes(x, w);
    let zeros = |cols| Tensor::zeros_on(&Device::Gpu(gpu.clone()), [rows, cols], DType::F32);
    let (y, stats) = (zeros(m)?, zeros(2)?);
    let mut l = gpu.launch(kernel)?;
    let (x, w) = (l.read(x.region()?), l.read(w.region()?));
    let p = NormLinear { x, w, y: l.write(y.region()?), stats: l.write(stats.region()?), ..p };
    l.run([rows, 1, 1], &p)?;
    Ok((y, stats))
}

/// dx; adds to dw.
pub fn backward(gpu: &Gpu, [x, w, stats, dy]: [&Tensor; 4], dw: &Tensor) -> Result<Tensor> {
    let (rows, m, p) = sizes(x, w);
    let dx = Tensor::zeros_on(&Device::Gpu(gpu.clone()), x.shape(), DType::F32)?;
    for (kernel, blocks) in [("norm_linear_bwd_x", rows), ("norm_linear_bwd_w", m)] {
        let mut l = gpu.launch(kernel)?;
        let (x, w, dy) = (l.read(x.region()?), l.read(w.region()?), l.read(dy.region()?));
        let mut p = NormLinear { x, w, dy, stats: l.read(stats.region()?).shared(), ..p };
        let of_x = kernel == "norm_linear_bwd_x";
        if of_x { p.dx = l.write(dx.region()?) } else { p.dw = l.update(dw.region()?) }
        l.run([blocks, 1, 1], &p)?;
    }
    Ok(dx)
}
