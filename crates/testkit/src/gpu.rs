//! Shared by the tests of GPU kernels: the test devices, bf16 values, uploads and downloads.

use half::bf16;
use pheye_tensor::{DType, Device, Shape, Tensor};

use crate::{Rule, normal};

/// The three devices that each kernel test runs on, with equal bits: the emulator with its threads in
/// ascending, reversed and shuffled order, or three times `PHEYE_TEST_DEVICE`, such as `cuda`.
///
/// # Panics
/// If a device is not available, or the test was built without its feature.
pub fn orders() -> [Device; 3] {
    let names = match std::env::var("PHEYE_TEST_DEVICE") {
        Ok(name) => [name.clone(), name.clone(), name],
        Err(_) => ["emulator", "emulator:reversed", "emulator:shuffled=7"].map(str::to_owned),
    };
    names.map(|name| match name.parse() {
        Ok(device) => device,
        Err(e) => panic!("{name}: {e}"),
    })
}

/// Rounds each value to the nearest bf16, ties to even.
pub fn round_bf16(values: &mut [f32]) {
    values.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
}

/// `n` standard normal values, rounded to bf16.
pub fn bf16_values(n: usize, seed: u64) -> Vec<f32> {
    let mut values = normal(seed, n);
    round_bf16(&mut values);
    values
}

/// The values in f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

/// A bf16 tensor of the values, rounded, on `device`.
///
/// # Panics
/// If the number of values does not match the shape, or the upload fails.
pub fn upload_bf16(device: &Device, shape: impl Into<Shape>, values: &[f32]) -> Tensor {
    let host = Tensor::from_f32(shape, values).and_then(|t| t.to_dtype(DType::Bf16));
    host.and_then(|t| t.to_device(device)).expect("upload")
}

/// An f32 tensor of the values on `device`.
///
/// # Panics
/// If the number of values does not match the shape, or the upload fails.
pub fn upload_f32(device: &Device, shape: impl Into<Shape>, values: &[f32]) -> Tensor {
    Tensor::from_f32(shape, values).and_then(|t| t.to_device(device)).expect("upload")
}

/// An activation of the values on `device`: f32 on the CPU, bf16 on a GPU.
///
/// # Panics
/// If the number of values does not match the shape, or the upload fails.
pub fn activation(device: &Device, shape: impl Into<Shape>, values: &[f32]) -> Tensor {
    match device {
        Device::Cpu => upload_f32(device, shape, values),
        Device::Gpu(_) => upload_bf16(device, shape, values),
    }
}

/// The elements of a tensor on any device, converted to f32.
///
/// # Panics
/// If the device reports an error.
pub fn download(t: &Tensor) -> Vec<f32> {
    let host = t.to_device(&Device::Cpu).and_then(|t| t.to_dtype(DType::F32)).expect("download");
    host.f32().expect("f32").to_vec()
}

/// Asserts that `out` is within the tolerance of `rule`.
///
/// # Panics
/// If it is not.
pub fn assert_rule(out: &[f32], truth: &[f64], naive: &[f32], rule: Rule, name: &str) {
    rule.compare(name, out, naive, truth).check();
}

/// Runs `f` on each device of [`orders`] and asserts that all results have the same bits. Returns the result.
///
/// # Panics
/// If two devices differ.
pub fn on_all_orders(f: impl Fn(&Device) -> Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let bits = |all: &[Vec<f32>]| -> Vec<Vec<u32>> {
        all.iter().map(|x| x.iter().map(|x| x.to_bits()).collect()).collect()
    };
    let [first, others @ ..] = orders();
    let result = f(&first);
    for device in others {
        let other = f(&device);
        assert_eq!(result.len(), other.len());
        for (i, (a, b)) in bits(&result).iter().zip(bits(&other)).enumerate() {
            assert!(*a == b, "result {i} differs on {device}");
        }
    }
    result
}
