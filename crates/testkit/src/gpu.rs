//! What the tests of GPU kernels share: the emulator in its orders, values that bf16 holds, and tensors there and back.

use half::bf16;
use pheye_tensor::{DType, Device, Shape, Tensor};

use crate::{Rule, normal};

/// The emulator, running its threads forwards, backwards and shuffled; or `PHEYE_TEST_DEVICE`, such as `cuda`, three times. A
/// kernel has the same bits on all three.
///
/// # Panics
/// When the test was built without the feature of that device, or there is none.
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

/// Rounds to the nearest bf16, ties to even.
pub fn round_bf16(values: &mut [f32]) {
    values.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
}

/// `n` standard normal numbers, rounded to bf16.
pub fn bf16_values(n: usize, seed: u64) -> Vec<f32> {
    let mut values = normal(seed, n);
    round_bf16(&mut values);
    values
}

/// The values in f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

/// A bf16 tensor of these values on the device; they are rounded.
///
/// # Panics
/// When their number is not that of the shape.
pub fn upload_bf16(device: &Device, shape: impl Into<Shape>, values: &[f32]) -> Tensor {
    let host = Tensor::from_f32(shape, values).and_then(|t| t.to_dtype(DType::Bf16));
    host.and_then(|t| t.to_device(device)).expect("upload")
}

/// An f32 tensor of these values on the device.
///
/// # Panics
/// When their number is not that of the shape.
pub fn upload_f32(device: &Device, shape: impl Into<Shape>, values: &[f32]) -> Tensor {
    Tensor::from_f32(shape, values).and_then(|t| t.to_device(device)).expect("upload")
}

/// The elements of a tensor on any device, in f32.
///
/// # Panics
/// When the device reports a fault.
pub fn download(t: &Tensor) -> Vec<f32> {
    let host = t.to_device(&Device::Cpu).and_then(|t| t.to_dtype(DType::F32)).expect("download");
    host.f32().expect("f32").to_vec()
}

/// Stops the test unless `out` is as near to the truth as the rule asks.
///
/// # Panics
/// When it is not.
pub fn assert_rule(out: &[f32], truth: &[f64], naive: &[f32], rule: Rule, name: &str) {
    rule.compare(name, out, naive, truth).check();
}

/// Runs `f` on every order of the emulator and compares what it returns, bit by bit. Returns one of them.
///
/// # Panics
/// When two orders differ.
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
