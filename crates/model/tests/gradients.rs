//! Compares the gradient of each tensor of the whole model with central differences of the loss.
//!
//! Along a direction v, the loss changes by g·v. A central difference with step h has an error of order h²,
//! so its distance from the difference with 2h is three times its error, and the distance between 2h and 4h
//! twelve times. The larger of the two bounds is used, because terms of order h⁴ may cancel one of them.
//! Rounding adds the noise of four losses; it is estimated as the change of the loss when every weight moves
//! to a neighbouring f32.

mod common;

use common::{batch, config, lively, of, values};
use pheye_model::{Batch, Pheye};
use pheye_ops::Cx;
use pheye_tensor::{Grads, Tensor};
use pheye_testkit::normal;

fn loss(model: &Pheye, batch: &Batch) -> f64 {
    model.loss(&Cx::cpu(), batch).unwrap().sum
}

/// Replaces the values of parameters by `f(parameter, element, value)`.
fn change(model: &mut Pheye, f: impl Fn(usize, usize, f32) -> f32) {
    for (i, p) in model.params_mut().into_iter().enumerate() {
        let new: Vec<f32> = values(&p.value).iter().enumerate().map(|(j, &x)| f(i, j, x)).collect();
        p.value = Tensor::from_f32(p.shape(), &new).unwrap();
    }
}

fn noise(model: &Pheye, batch: &Batch, seed: u64) -> f64 {
    let mut moved = lively(model.config());
    change(&mut moved, |i, j, x| {
        let coin = (seed + 31 * i as u64 + j as u64 * 7 + (j as u64).pow(2) * 3) / 2 % 2;
        if coin == 0 { x.next_up() } else { x.next_down() }
    });
    (loss(&moved, batch) - loss(model, batch)).abs()
}

#[test]
fn every_tensor_agrees_with_differences_of_the_loss() {
    let config = config();
    let mut model = lively(&config);
    let batch = batch(&config, &[7, 12]);
    let mut grads = Grads::new(model.train(|_| true).unwrap());
    model.loss_and_grads(&Cx::cpu(), &batch, None, &mut grads).unwrap();
    let noise = (0..4).map(|seed| noise(&model, &batch, seed)).fold(0.0, f64::max);
    let mut checked = 0;
    let names: Vec<String> = model.params_mut().iter().map(|p| p.name.clone()).collect();
    for (which, name) in names.iter().enumerate() {
        // Unused norms have no gradient. A bias of keys shifts all scores of a query equally, which softmax
        // ignores.
        if grads.table.entries().iter().all(|(n, _)| n != name) || name.contains("k_proj.base_layer.bias") {
            continue;
        }
        let g = of(&grads, name);
        let norm = g.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        // Half along the gradient, so that the loss changes, and half random, so that every element
        // contributes.
        let u = normal(which as u64, g.len());
        let scale = (g.len() as f64).sqrt().recip();
        let v: Vec<f64> =
            g.iter().zip(&u).map(|(&g, &u)| f64::from(g) / norm + f64::from(u) * scale).collect();
        let start = values(&model.params_mut()[which].value);
        let mut at = |h: f64| {
            // Weights are f32, so the direction is the difference after rounding.
            let to: Vec<f32> = start.iter().zip(&v).map(|(&x, &v)| (f64::from(x) + h * v) as f32).collect();
            let p = model.params_mut().swap_remove(which);
            p.value = Tensor::from_f32(p.shape(), &to).unwrap();
            let along = to
                .iter()
                .zip(&start)
                .zip(g)
                .map(|((&t, &s), &g)| (f64::from(t) - f64::from(s)) * f64::from(g));
            (loss(&model, &batch), along.sum::<f64>())
        };
        // Small enough for the differences to converge, large enough to change the loss by 0.01.
        let h = 0.005 / norm;
        let mut difference = |h: f64| {
            let ((up, along_up), (down, along_down)) = (at(h), at(-h));
            ((up - down) / (along_up - along_down), noise / (along_up - along_down))
        };
        let (near, rounding) = difference(h);
        let (far, _) = difference(2.0 * h);
        let (farther, _) = difference(4.0 * h);
        at(0.0);
        let allowed = (near - far).abs().max((far - farther).abs() / 4.0) + 4.0 * rounding;
        assert!(allowed < 0.02, "{name}: differences say little, {allowed:e}");
        assert!((near - 1.0).abs() <= allowed, "{name}: {near} of the gradient, allowed is {allowed:e}");
        checked += 1;
    }
    assert!(checked > 100, "{checked}");
}
