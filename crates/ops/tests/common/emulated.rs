//! Parameters on the emulator, and products as the plain formula in f32 and in f64.

#![allow(dead_code)] // each test file uses some of it

use pheye_tensor::{Device, Grads, Param, ParamTable, Tensor};

/// Moves `params` to the device; those that `trained` picks get gradients that start as `start`.
pub fn place(
    device: &Device,
    mut params: Vec<&mut Param>,
    trained: impl Fn(&Param) -> bool,
    start: f32,
) -> Grads {
    let table = ParamTable::assign(params.iter_mut().map(|p| &mut **p), trained).unwrap();
    table.upload(params, device).unwrap();
    let flat = Tensor::from_f32([table.len()], &vec![start; table.len()]).unwrap();
    Grads { flat: flat.to_device(device).unwrap(), table }
}

/// a b for [m, k] and [k, n] given as functions, in f32 and in f64.
pub fn product(
    [m, n, k]: [usize; 3],
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> (Vec<f32>, Vec<f64>) {
    let (mut naive, mut truth) = (Vec::with_capacity(m * n), Vec::with_capacity(m * n));
    for i in 0..m {
        for j in 0..n {
            let (mut s, mut t) = (0f32, 0f64);
            for l in 0..k {
                s += a(i, l) * b(l, j);
                t += f64::from(a(i, l)) * f64::from(b(l, j));
            }
            naive.push(s);
            truth.push(t);
        }
    }
    (naive, truth)
}
