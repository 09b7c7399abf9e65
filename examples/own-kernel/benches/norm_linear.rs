//! `cargo bench --features cuda`: forward at the size of a projection of Phi-1.5, in time and in bytes a second.
use own_kernel::{KERNELS, forward};
use pheye_tensor::{DType, Device, Gpu, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpu = Gpu::open("cuda")?;
    gpu.load(&KERNELS)?;
    let (rows, k, m) = (65, 2048, 2048);
    let zeros = |shape: [usize; 2]| Tensor::zeros_on(&Device::Gpu(gpu.clone()), shape, DType::F32);
    let (x, w) = (zeros([rows, k])?, zeros([m, k])?);
    let run = || drop(forward(&gpu, "norm_linear_fwd", &x, &w).expect("a launch"));
    run(); // loads the kernel
    let seconds = gpu.time(|| Ok((0..20).for_each(|_| run())))?.as_secs_f64() / 20.0;
    let gigabytes = 4e-9 * (rows * k + m * k + rows * m) as f64;
    Ok(println!("{rows}x{k}x{m}: {:.1} µs, {:.0} GB/s", 1e6 * seconds, gigabytes / seconds))
}
