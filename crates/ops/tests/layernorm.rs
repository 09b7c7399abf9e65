//! The fused forms of LayerNorm on the CPU are the unfused ones, bit by bit, and look at the same shapes.

mod common;

use common::{grad_of, param, tensor, train_all, values};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::Linear;
use pheye_ops::{Cx, Error, add, linear};
use pheye_testkit::normal;

const ROWS: usize = 5;
const D: usize = 12;

fn layer() -> LayerNorm {
    let (weight, bias) = (param("weight", [D], &normal(2, D)), param("bias", [D], &normal(3, D)));
    LayerNorm { weight, bias, eps: 1e-5 }
}

#[test]
fn residuals() {
    let (cx, mut p) = (Cx::cpu(), layer());
    let mut grads = train_all(p.params_mut());
    let [x, dy, dres] = [1, 5, 6].map(|seed| tensor([ROWS, D], &normal(seed, ROWS * D)));
    let (_, saved) = layernorm::forward(&cx, &x, &p).unwrap();
    let dx = layernorm::backward_residual(&cx, &saved, &dy, dres.clone(), &p, Some(&mut grads)).unwrap();
    let fused = [values(&dx), grad_of(&mut grads, &p.weight)];

    grads.clear().unwrap();
    let dx = layernorm::backward(&cx, &saved, &dy, &p, Some(&mut grads)).unwrap();
    let dx = add::forward(&cx, dres, &dx).unwrap();
    assert_eq!(fused, [values(&dx), grad_of(&mut grads, &p.weight)]);
}

#[test]
fn lora_down() {
    let (cx, p) = (Cx::cpu(), layer());
    let x = tensor([ROWS, D], &normal(1, ROWS * D));
    let a = tensor([3, D], &normal(7, 3 * D));
    let down = Linear { weight: param("A", [3, D], &values(&a)), bias: None };
    let out = layernorm::forward_lora_down(&cx, &x, &p, &a).unwrap();
    let (y, _) = layernorm::forward(&cx, &x, &p).unwrap();
    let (s, _) = linear::forward(&cx, &y, &down).unwrap();
    assert_eq!([&out.y, &out.s].map(values), [&y, &s].map(values));
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let (cx, p) = (Cx::cpu(), layer());
    let (x, small) = (tensor([ROWS, D], &[0.0; ROWS * D]), tensor([1, D], &[0.0; D]));
    let (_, saved) = layernorm::forward(&cx, &x, &p).unwrap();
    let faults = [
        layernorm::backward_residual(&cx, &saved, &x, small.clone(), &p, None).err(),
        layernorm::forward_lora_down(&cx, &x, &p, &tensor([2, 5], &[0.0; 10])).err(),
    ];
    for fault in faults {
        assert!(matches!(fault, Some(Error::Shapes { op: "layernorm", .. })), "{fault:?}");
    }
}
