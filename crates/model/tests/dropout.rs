//! LoRA dropout in training: it depends only on its RNG offset, and has no effect on average.

mod common;

use common::{batch, config, lively, relative, values};
use pheye_model::Pheye;
use pheye_ops::Cx;
use pheye_ops::lora::Dropout;
use pheye_tensor::{Grads, Tensor};

/// The squared distance of two vectors.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}

#[test]
fn a_stream_decides_the_mask_and_the_mean_is_the_gradient_without() {
    let config = config();
    let (mut model, cx) = (lively(&config), Cx::cpu());
    // With such small adapters, the loss is nearly linear in them, so that dropout does not change the mean
    // gradient.
    for p in model.params_mut().into_iter().filter(|p| p.name.contains("lora_B")) {
        let weak: Vec<f32> = values(&p.value).iter().map(|x| 0.01 * x).collect();
        p.value = Tensor::from_f32(p.shape(), &weak).unwrap();
    }
    let table = model.train(|n| n.contains(".lora_A.") || n.contains(".lora_B.")).unwrap();
    let batch = batch(&config, &[9]);
    let gradient = |p: f32, rng_offset: u64| {
        let mut grads = Grads::new(table.clone());
        let dropout = Some(Dropout { p, seed: 7, rng_offset });
        let loss = model.loss_and_grads(&cx, &batch, dropout, &mut grads).unwrap();
        (loss.sum, values(&grads.flat))
    };
    let mut grads = Grads::new(table.clone());
    let plain = model.loss_and_grads(&cx, &batch, None, &mut grads).unwrap();
    let plain = (plain.sum, values(&grads.flat));
    assert_eq!(gradient(0.0, 3), plain);
    assert_eq!(gradient(0.3, 3), gradient(0.3, 3));

    const STREAMS: u64 = 100;
    let drawn: Vec<_> = (0..STREAMS).map(|rng_offset| gradient(0.3, rng_offset).1).collect();
    assert!(drawn.iter().skip(1).all(|g| relative(g, &drawn[0]) > 0.01));
    let mean: Vec<f32> =
        (0..plain.1.len()).map(|i| drawn.iter().map(|g| g[i]).sum::<f32>() / STREAMS as f32).collect();
    // The squared distance of the mean of n draws is 1/n of that of one draw; the bound is four times that.
    let one = drawn.iter().map(|g| distance(g, &plain.1)).sum::<f64>() / STREAMS as f64;
    let of_mean = distance(&mean, &plain.1);
    assert!(of_mean < 4.0 * one / STREAMS as f64, "{of_mean:e} {one:e}");
}

#[test]
fn evaluation_drops_nothing() {
    let config = config();
    let (mut model, cx) = (lively(&config), Cx::cpu());
    let mut grads = Grads::new(model.train(Pheye::is_pheye_param).unwrap());
    let batch = batch(&config, &[9]);
    let loss = model.loss(&cx, &batch).unwrap();
    let dropped = Dropout { p: 0.5, seed: 1, rng_offset: 1 };
    assert_ne!(model.loss_and_grads(&cx, &batch, Some(dropped), &mut grads).unwrap(), loss);
    assert_eq!(model.loss(&cx, &batch).unwrap(), loss);
    let error =
        model.loss_and_grads(&cx, &batch, Some(Dropout { p: 1.0, ..dropped }), &mut grads).unwrap_err();
    assert!(error.to_string().contains("dropout"), "{error}");
}
