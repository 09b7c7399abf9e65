//! AdamW against its formula over several steps, and the norm of gradients.

mod common;

use common::{param, train_all, values};
use pheye_ops::adamw::{AdamW, Moments, global_norm, step};
use pheye_ops::{Cx, Error};
use pheye_tensor::{DType, Grads, Param, ParamTable, Tensor};
use pheye_testkit::{Real, Rule, normal};
use proptest::prelude::*;

const HP: AdamW = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };

/// State [p, m, v] after a step with gradient g.
fn reference<T: Real>(state: &mut [Vec<T>; 3], g: &[f32], t: i32, scale: f64) {
    let [p, m, v] = state;
    let c = T::of;
    for (i, &g) in g.iter().enumerate() {
        let g = c(g.into()) * c(scale);
        m[i] = c(HP.beta1) * m[i] + c(1.0 - HP.beta1) * g;
        v[i] = c(HP.beta2) * v[i] + c(1.0 - HP.beta2) * g * g;
        let m = m[i] / c(1.0 - HP.beta1.powi(t));
        let v = v[i] / c(1.0 - HP.beta2.powi(t));
        p[i] = p[i] - c(HP.lr * HP.weight_decay) * p[i] - c(HP.lr) * m / (v.sqrt() + c(HP.eps));
    }
}

/// Steps of parameters of these sizes, with a frozen one among them.
fn check(sizes: &[usize], steps: u64) {
    let cx = Cx::cpu();
    let start = |n: usize| normal(n as u64, n);
    let mut all: Vec<Param> = sizes.iter().map(|&n| param(&n.to_string(), [n], &start(n))).collect();
    let mut frozen = param("frozen", [7], &normal(9, 7));
    let mut truth: Vec<[Vec<f64>; 3]> =
        sizes.iter().map(|&n| [lift(&start(n)), vec![0.0; n], vec![0.0; n]]).collect();
    let mut naive: Vec<[Vec<f32>; 3]> =
        sizes.iter().map(|&n| [start(n), vec![0.0; n], vec![0.0; n]]).collect();
    let table = ParamTable::assign(all.iter_mut(), |_| true).unwrap();
    let mut grads = Grads::new(table);
    let mut moments = Moments { m: grads.table.zeros(), v: grads.table.zeros() };
    for t in 1..=steps {
        for (i, p) in all.iter().enumerate() {
            let g = normal(t * 10 + i as u64, sizes[i]);
            grads.of(p).unwrap().unwrap().copy_from_slice(&g);
            reference(&mut truth[i], &g, t as i32, 0.25);
            reference(&mut naive[i], &g, t as i32, 0.25);
        }
        let mut params: Vec<&mut Param> = all.iter_mut().chain([&mut frozen]).collect();
        step(&cx, &mut params, &grads, &mut moments, &HP, t, 0.25).unwrap();
    }
    for (i, p) in all.iter().enumerate() {
        let at = grads.table.range(p).unwrap();
        let (m, v) = (&moments.m.f32().unwrap()[at.clone()], &moments.v.f32().unwrap()[at]);
        for (k, (name, out)) in [("p", &values(&p.value)[..]), ("m", m), ("v", v)].into_iter().enumerate() {
            Rule::OUTPUT
                .compare(format!("{name} of {} values", sizes[i]), out, &naive[i][k], &truth[i][k])
                .check();
        }
    }
    assert_eq!(values(&frozen.value), normal(9, 7));
}

#[test]
fn follows_the_formula_for_twenty_steps() {
    check(&[5000, 33, 1], 20);
}

proptest! {
    #![proptest_config(common::repeatable(16))]

    #[test]
    fn any_sizes(sizes in prop::collection::vec(1..200usize, 1..5), steps in 1..4u64) {
        check(&sizes, steps);
    }
}

fn lift<T: Real>(x: &[f32]) -> Vec<T> {
    x.iter().map(|&x| T::of(x.into())).collect()
}

#[test]
fn a_zero_gradient_at_the_first_step_leaves_only_decay() {
    let (cx, mut p) = (Cx::cpu(), param("p", [2], &[1.0, -2.0]));
    let grads = train_all(vec![&mut p]);
    let mut moments = Moments { m: grads.table.zeros(), v: grads.table.zeros() };
    step(&cx, &mut [&mut p], &grads, &mut moments, &HP, 1, 1.0).unwrap();
    assert_eq!(values(&p.value), [0.999, -1.998]);
}

#[test]
fn norm_is_that_of_all_gradients() {
    let mut all = [param("a", [50_001], &vec![0.0; 50_001]), param("b", [3], &[0.0; 3])];
    let mut grads = train_all(all.iter_mut().collect());
    let (a, b) = (normal(1, 50_001), [3e20, -4e20, 0.0]);
    grads.of(&all[0]).unwrap().unwrap().copy_from_slice(&a);
    let truth = a.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
    let norm = global_norm(&Cx::cpu(), &grads).unwrap();
    assert!((norm / truth - 1.0).abs() < 1e-13);
    // Squares beyond the range of f32.
    grads.of(&all[1]).unwrap().unwrap().copy_from_slice(&b);
    assert!((global_norm(&Cx::cpu(), &grads).unwrap() / 5e20 - 1.0).abs() < 1e-7);
}

#[test]
fn moments_of_another_length_are_refused() {
    let mut p = param("p", [2], &[1.0, -2.0]);
    let grads = train_all(vec![&mut p]);
    let mut moments = Moments { m: grads.table.zeros(), v: Tensor::zeros([1], DType::F32) };
    let fault = step(&Cx::cpu(), &mut [&mut p], &grads, &mut moments, &HP, 1, 1.0).unwrap_err();
    assert!(matches!(fault, Error::Shapes { op: "adamw", left_name: "v", .. }));
}
