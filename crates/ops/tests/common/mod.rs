//! Tensors and trained parameters from plain numbers.

#![allow(dead_code)] // each test file uses some of it

use pheye_ops::linear::Linear;
use pheye_tensor::{DType, Grads, Param, ParamTable, Shape, Tensor};

/// A tensor of these values.
pub fn tensor(shape: impl Into<Shape>, values: &[f32]) -> Tensor {
    Tensor::from_f32(shape, values).unwrap()
}

/// A parameter of these values.
pub fn param(name: &str, shape: impl Into<Shape>, values: &[f32]) -> Param {
    Param::frozen(name, tensor(shape, values))
}

/// An affine map of weight [n, k].
pub fn linear(n: usize, k: usize, weight: &[f32], bias: Option<&[f32]>) -> Linear {
    Linear { weight: param("weight", [n, k], weight), bias: bias.map(|b| param("bias", [n], b)) }
}

/// Trains all of `params`.
pub fn train_all(params: Vec<&mut Param>) -> Grads {
    Grads::new(ParamTable::assign(params, |_| true).unwrap())
}

/// The gradient of a trained parameter.
pub fn grad_of(grads: &mut Grads, param: &Param) -> Vec<f32> {
    grads.of(param).unwrap().unwrap().to_vec()
}

/// The elements.
pub fn values(t: &Tensor) -> Vec<f32> {
    t.f32().unwrap().to_vec()
}

/// The parameter in bf16, and in f32 with the values that bf16 left.
pub fn rounded(p: &Param) -> (Param, Param) {
    let narrow = p.value.to_dtype(DType::Bf16).unwrap();
    let wide = narrow.to_dtype(DType::F32).unwrap();
    (Param::frozen(p.name.clone(), narrow), Param::frozen(p.name.clone(), wide))
}
