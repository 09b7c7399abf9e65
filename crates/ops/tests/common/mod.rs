//! Helpers of the tests: tensors and trained parameters from slices, and small functions for formulas.

#![allow(dead_code)] // each test file uses some of it

use pheye_ops::linear::Linear;
use pheye_tensor::{DType, Device, Grads, Param, ParamTable, Shape, Tensor};
use pheye_testkit::gpu::{download, upload_bf16, upload_f32};
use pheye_testkit::{BEFORE, Real};

/// A tensor with these values.
pub(crate) fn tensor(shape: impl Into<Shape>, values: &[f32]) -> Tensor {
    Tensor::from_f32(shape, values).unwrap()
}

/// A parameter with these values.
pub(crate) fn param(name: &str, shape: impl Into<Shape>, values: &[f32]) -> Param {
    Param::frozen(name, tensor(shape, values))
}

/// A linear with weight [n, k].
pub(crate) fn linear(n: usize, k: usize, weight: &[f32], bias: Option<&[f32]>) -> Linear {
    Linear { weight: param("weight", [n, k], weight), bias: bias.map(|b| param("bias", [n], b)) }
}

/// Makes all of `params` trained.
pub(crate) fn train_all(params: Vec<&mut Param>) -> Grads {
    Grads::new(ParamTable::assign(params, |_| true).unwrap())
}

/// The gradient of a trained parameter.
pub(crate) fn grad_of(grads: &mut Grads, param: &Param) -> Vec<f32> {
    grads.of(param).unwrap().unwrap().to_vec()
}

/// The elements of a tensor.
pub(crate) fn values(t: &Tensor) -> Vec<f32> {
    t.f32().unwrap().to_vec()
}

/// The parameter rounded to bf16, as bf16 and as f32.
pub(crate) fn rounded(p: &Param) -> (Param, Param) {
    let narrow = p.value.to_dtype(DType::Bf16).unwrap();
    let wide = narrow.to_dtype(DType::F32).unwrap();
    (Param::frozen(p.name.clone(), narrow), Param::frozen(p.name.clone(), wide))
}

/// Runs `f` with 1 and with 3 threads and asserts that the results are bit-identical.
pub(crate) fn same_on_any_threads(f: impl Fn() -> Vec<Vec<f32>> + Sync) {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect();
        pool.install(&f).into_iter().map(bits).collect::<Vec<Vec<u32>>>()
    };
    let (one, three) = (on(1), on(3));
    assert_eq!(one.len(), three.len());
    for (i, (a, b)) in one.iter().zip(&three).enumerate() {
        assert!(a == b, "result {i} differs between 1 and 3 threads");
    }
}

/// Σ x.
pub(crate) fn sum<T: Real>(x: impl Iterator<Item = T>) -> T {
    let mut sum = T::of(0.0);
    x.for_each(|x| sum += x);
    sum
}

/// The matrix product x wᵀ for x [m, k] and w [n, k].
pub(crate) fn product<T: Real>(x: &[T], w: &[T], k: usize) -> Vec<T> {
    x.chunks(k).flat_map(|x| w.chunks(k).map(move |w| T::dot(x, w))).collect()
}

/// The transpose of w [n, k].
pub(crate) fn transpose<T: Copy>(w: &[T], k: usize) -> Vec<T> {
    (0..k).flat_map(|l| w.iter().skip(l).step_by(k).copied()).collect()
}

/// A tensor with these values on a device, in the activation type of the device.
pub(crate) fn upload(device: &Device, dtype: DType, shape: impl Into<Shape>, values: &[f32]) -> Tensor {
    match dtype {
        DType::Bf16 => upload_bf16(device, shape, values),
        _ => upload_f32(device, shape, values),
    }
}

/// Moves `params` to the device and makes those that `trained` selects trained. Their gradients start from [`BEFORE`]
/// on a GPU, and from 0 on the CPU, as `gradcheck` expects.
pub(crate) fn place(device: &Device, mut params: Vec<&mut Param>, trained: impl Fn(&Param) -> bool) -> Grads {
    let table = ParamTable::assign(params.iter_mut().map(|p| &mut **p), trained).unwrap();
    if let Device::Cpu = device {
        return Grads::new(table);
    }
    table.upload(params, device).unwrap();
    Grads { flat: upload_f32(device, [table.len()], &vec![BEFORE; table.len()]), table }
}

/// Downloads the gradient of a trained parameter from any device.
pub(crate) fn added(grads: &Grads, param: &Param) -> Vec<f32> {
    download(&grads.view(param).unwrap().expect("a trained parameter"))
}

/// A proptest configuration with this number of cases, the same ones in every run. The tolerance is twice the error of
/// the plain formula, and in one random case out of several hundred the plain formula happens to be exact.
pub(crate) fn repeatable(cases: u32) -> proptest::test_runner::Config {
    let rng_seed = proptest::test_runner::RngSeed::Fixed(1);
    proptest::test_runner::Config { cases, rng_seed, failure_persistence: None, ..Default::default() }
}
