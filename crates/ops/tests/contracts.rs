//! Properties of the rowwise operations besides their values: results do not depend on the number of threads, frozen
//! parameters get no gradient, bf16 weights act like the f32 values they represent, and inconsistent shapes give
//! errors.

mod common;

use common::{grad_of, linear, param, rounded, same_on_any_threads, tensor, train_all, values};
use pheye_ops::adamw::{AdamW, Moments, global_norm, step};
use pheye_ops::gelu::Gelu;
use pheye_ops::layernorm::LayerNorm;
use pheye_ops::rotary::Rotary;
use pheye_ops::{Cx, Error, RandomInit, contrastive, cross_entropy, embedding, gelu, layernorm, rotary};
use pheye_tensor::{DType, Grads, Init, Param, ParamTable, Source, Tensor};
use pheye_testkit::normal;

fn norm(d: usize) -> LayerNorm {
    LayerNorm {
        weight: param("weight", [d], &normal(2, d)),
        bias: param("bias", [d], &normal(3, d)),
        eps: 1e-5,
    }
}

/// The results of every operation, at sizes that are split into several tasks.
fn everything() -> Vec<Vec<f32>> {
    const ROWS: usize = 700;
    const D: usize = 72;
    let cx = Cx::cpu();
    let (x, dy) = (tensor([ROWS, D], &normal(1, ROWS * D)), tensor([ROWS, D], &normal(4, ROWS * D)));
    let mut out = Vec::new();

    let mut p = norm(D);
    let mut grads = train_all(p.params_mut());
    let (y, saved) = layernorm::forward(&cx, &x, &p).unwrap();
    let dx = layernorm::backward(&cx, &saved, &dy, &p, Some(&mut grads)).unwrap();
    out.extend([values(&y), values(&dx), values(&grads.flat)]);

    for kind in [Gelu::Exact, Gelu::Tanh, Gelu::Quick] {
        let (y, saved) = gelu::forward(&cx, &x, kind).unwrap();
        out.extend([values(&y), values(&gelu::backward(&cx, &saved, &dy, kind).unwrap())]);
    }

    let positions: Vec<u32> = (0..ROWS as u32).collect();
    let p = Rotary::new(3, 24, 12, 10000.0, ROWS);
    out.push(values(&rotary::forward(&cx, x.clone(), &positions, &p).unwrap()));

    let ids: Vec<u32> = positions.iter().map(|i| i % 97).collect();
    let mut table = param("table", [97, D], &normal(5, 97 * D));
    let mut grads = train_all(vec![&mut table]);
    out.push(values(&embedding::forward(&cx, &ids, &table).unwrap()));
    embedding::backward(&cx, &ids, &dy, &table, Some(&mut grads)).unwrap();
    out.push(values(&grads.flat));

    let mut head = linear(4001, D, &normal(6, 4001 * D), Some(&normal(7, 4001)));
    let mut grads = train_all(head.params_mut());
    let targets: Vec<i64> = (0..ROWS as i64).map(|i| if i % 5 == 0 { -100 } else { i }).collect();
    let loss = cross_entropy::run(&cx, &x, &head, &targets, true, Some(&mut grads)).unwrap();
    out.extend([vec![loss.sum as f32], values(&loss.dx.unwrap()), values(&grads.flat)]);
    out.push(vec![global_norm(&cx, &grads).unwrap() as f32]);

    let hp = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
    let mut moments = Moments { m: grads.table.zeros(), v: grads.table.zeros() };
    step(&cx, &mut head.params_mut(), &grads, &mut moments, &hp, 1, 1.0).unwrap();
    out.push(values(&head.weight.value));

    let labels: Vec<usize> = (0..ROWS).map(|i| i % 61).collect();
    let loss =
        contrastive::forward_backward(&cx, &x, &tensor([61, D], &normal(8, 61 * D)), &labels, 1.0).unwrap();
    out.extend([vec![loss.loss as f32, loss.dlog_scale], values(&loss.dimages), values(&loss.dtexts)]);
    out.push(values(&RandomInit::new(1).tensor("w", [ROWS, D].into(), Init::Normal(1.0))));
    out
}

#[test]
fn threads_do_not_show() {
    same_on_any_threads(everything);
}

#[test]
fn frozen_parameters_get_nothing() {
    let (cx, d) = (Cx::cpu(), 5);
    let (x, dy) = (tensor([3, d], &normal(1, 15)), tensor([3, d], &normal(2, 15)));
    let mut p = norm(d);
    let mut grads = Grads::new(ParamTable::assign(p.params_mut(), |p| p.name == "bias").unwrap());
    let (_, saved) = layernorm::forward(&cx, &x, &p).unwrap();
    let dx = layernorm::backward(&cx, &saved, &dy, &p, Some(&mut grads)).unwrap();
    let sums: Vec<f32> = (0..d).map(|j| (0..3).map(|i| dy.f32().unwrap()[i * d + j]).sum()).collect();
    assert_eq!(grad_of(&mut grads, &p.bias), sums);
    assert_eq!(grads.table.range(&p.weight), None);

    let frozen = norm(d);
    grads.clear().unwrap();
    let without = layernorm::backward(&cx, &saved, &dy, &frozen, Some(&mut grads)).unwrap();
    assert_eq!(values(&dx), values(&without));
    let head = linear(4, d, &normal(3, 20), None);
    cross_entropy::run(&cx, &x, &head, &[0, 1, 2], true, Some(&mut grads)).unwrap();
    embedding::backward(&cx, &[0, 0, 3], &dy, &head.weight, Some(&mut grads)).unwrap();
    assert!(values(&grads.flat).iter().all(|&g| g == 0.0));
}

#[test]
fn gradients_add_up() {
    let (cx, d) = (Cx::cpu(), 5);
    let (x, dy) = (tensor([3, d], &normal(1, 15)), tensor([3, d], &normal(2, 15)));
    let (mut p, mut head) = (norm(d), linear(6, d, &normal(3, 6 * d), Some(&normal(4, 6))));
    let mut grads = train_all(p.params_mut().into_iter().chain(head.params_mut()).collect());
    let mut once = Vec::new();
    for _ in 0..2 {
        let (_, saved) = layernorm::forward(&cx, &x, &p).unwrap();
        layernorm::backward(&cx, &saved, &dy, &p, Some(&mut grads)).unwrap();
        cross_entropy::run(&cx, &x, &head, &[5, -100, 2], false, Some(&mut grads)).unwrap();
        embedding::backward(&cx, &[1, 1, 5], &dy, &head.weight, Some(&mut grads)).unwrap();
        once = if once.is_empty() { values(&grads.flat) } else { once };
    }
    for (i, (twice, once)) in values(&grads.flat).iter().zip(&once).enumerate() {
        assert!((twice - 2.0 * once).abs() <= 1e-6 * once.abs().max(1.0), "{i}: {twice} {once}");
    }
}

#[test]
fn bf16_weights_count_as_their_values() {
    let (cx, x) = (Cx::cpu(), tensor([4, 6], &normal(1, 24)));
    let p = norm(6);
    let both = |narrow| {
        let pick = |p: &Param| if narrow { rounded(p).0 } else { rounded(p).1 };
        let p = LayerNorm { weight: pick(&p.weight), bias: pick(&p.bias), eps: p.eps };
        let (y, saved) = layernorm::forward(&cx, &x, &p).unwrap();
        let dx = layernorm::backward(&cx, &saved, &x, &p, None).unwrap();
        let mut head = linear(9, 6, &normal(2, 54), Some(&normal(3, 9)));
        let embedded = embedding::forward(&cx, &[8, 0, 8], &pick(&head.weight)).unwrap();
        head.weight = pick(&head.weight);
        head.bias = head.bias.as_ref().map(pick);
        let loss = cross_entropy::run(&cx, &x, &head, &[0, 8, 3, -100], true, None).unwrap();
        [values(&y), values(&dx), values(&embedded), vec![loss.sum as f32], values(&loss.dx.unwrap())]
    };
    assert_eq!(both(true), both(false));
}

#[test]
fn rotary_works_in_place_only_when_nobody_looks() {
    let (cx, p) = (Cx::cpu(), Rotary::new(1, 4, 4, 10000.0, 8));
    let x = tensor([2, 4], &normal(1, 8));
    let y = rotary::forward(&cx, x.clone(), &[3, 7], &p).unwrap();
    assert_eq!(values(&x), normal(1, 8));
    let back = rotary::backward(&cx, y, &[3, 7], &p).unwrap();
    assert!(values(&back).iter().zip(normal(1, 8)).all(|(a, b)| (a - b).abs() < 1e-6));
    let before = cx.arena.stats().allocations;
    rotary::forward(&cx, back, &[0, 1], &p).unwrap();
    assert_eq!(cx.arena.stats().allocations, before);
}

#[test]
fn nothing_at_all_is_fine() {
    let (cx, none) = (Cx::cpu(), Tensor::zeros([0, 6], DType::F32));
    let head = linear(9, 6, &normal(2, 54), None);
    let loss = cross_entropy::run(&cx, &none, &head, &[], true, None).unwrap();
    assert_eq!((loss.sum, loss.tokens, loss.dx.unwrap().shape().rows()), (0.0, 0, 0));
    let ignored =
        cross_entropy::run(&cx, &tensor([2, 6], &normal(1, 12)), &head, &[-100; 2], true, None).unwrap();
    assert_eq!((ignored.sum, ignored.tokens, values(&ignored.dx.unwrap())), (0.0, 0, vec![0.0; 12]));
    assert_eq!(layernorm::forward(&cx, &none, &norm(6)).unwrap().0.shape(), none.shape());
    assert_eq!(embedding::forward(&cx, &[], &head.weight).unwrap().shape(), none.shape());
}

#[test]
fn misfits_are_refused_by_name() {
    let cx = Cx::cpu();
    let x = tensor([2, 6], &normal(1, 12));
    let head = linear(9, 6, &normal(2, 54), None);
    let says = |e: Error| e.to_string();
    assert_eq!(
        says(layernorm::forward(&cx, &x, &norm(5)).unwrap_err()),
        "layernorm: x [2, 6] does not fit weight [5]"
    );
    let (_, saved) = layernorm::forward(&cx, &x, &norm(6)).unwrap();
    let wrong = tensor([3, 4], &normal(1, 12));
    let e = layernorm::backward(&cx, &saved, &wrong, &norm(6), None).unwrap_err();
    assert_eq!(says(e), "layernorm: dy [3, 4] does not fit x [2, 6]");
    let (_, saved) = gelu::forward(&cx, &x, Gelu::Exact).unwrap();
    let e = gelu::backward(&cx, &saved, &tensor([1], &[1.0]), Gelu::Exact).unwrap_err();
    assert_eq!(says(e), "gelu: dy [1] does not fit x [2, 6]");
    let p = Rotary::new(1, 6, 4, 10000.0, 8);
    let e = rotary::forward(&cx, x.clone(), &[0, 8], &p).unwrap_err();
    assert_eq!(says(e), "rotary: position is 8, expected 0..8");
    assert!(matches!(rotary::forward(&cx, x.clone(), &[0], &p), Err(Error::Shapes { op: "rotary", .. })));
    let e = embedding::forward(&cx, &[0, 9], &head.weight).unwrap_err();
    assert_eq!(says(e), "embedding: id is 9, expected 0..9");
    let run = |targets: &[i64]| cross_entropy::run(&cx, &x, &head, targets, false, None).unwrap_err();
    for bad in [9, -1, -101, i64::MAX] {
        assert_eq!(says(run(&[0, bad])), format!("cross_entropy: target is {bad}, expected 0..9 and -100"));
    }
    assert_eq!(says(run(&[0])), "cross_entropy: x [2, 6] does not fit targets [1]");
    let contrast = |texts: &Tensor, labels: &[usize]| {
        says(contrastive::forward_backward(&cx, &x, texts, labels, 0.0).unwrap_err())
    };
    assert_eq!(contrast(&x, &[0, 2]), "contrastive: label is 2, expected 0..2");
    assert_eq!(contrast(&x, &[0]), "contrastive: images [2, 6] does not fit labels [1]");
    assert_eq!(contrast(&wrong, &[0, 0]), "contrastive: images [2, 6] does not fit texts [3, 4]");
}
