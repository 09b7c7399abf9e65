//! Losses and gradients: texts that share an image, recomputed layers, and the whole gradient against differences.

mod common;

use common::{batch, every_kind, random};
use pheye_baselines::Baseline;
use pheye_model::Recompute;
use pheye_ops::Cx;
use pheye_tensor::Grads;

/// Loss and gradients of the parameters that the paper trains, or of all.
fn grads(model: &mut Baseline, texts: &[(usize, usize)], images: usize, all: bool) -> (f64, usize, Vec<f32>) {
    let config = model.config().clone();
    let table = model.train(|name| all || config.trains(name)).unwrap();
    let mut grads = Grads::new(table);
    let batch = batch(&config, images, texts);
    let loss = model.loss_and_grads(&Cx::cpu(), &batch, None, &mut grads).unwrap();
    let plain = model.loss(&Cx::cpu(), &batch).unwrap();
    assert_eq!(loss.tokens, plain.tokens);
    assert!((loss.sum - plain.sum).abs() < 1e-4 * plain.sum.abs(), "{} {}", loss.sum, plain.sum);
    (loss.sum, loss.tokens, grads.flat.f32().unwrap().to_vec())
}

fn close(a: &[f32], b: &[f32]) -> bool {
    let largest = b.iter().fold(0f32, |m, x| m.max(x.abs()));
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2e-5 * largest)
}

/// Image 0 has three texts, image 1 none and image 2 one; the sum is that of the texts alone.
#[test]
fn texts_that_share_an_image_are_as_if_alone() {
    let texts = [(0, 4), (0, 2), (0, 7), (2, 3)];
    for (name, config) in every_kind() {
        let mut model = random(&config, 5);
        for all in [false, true] {
            let (sum, tokens, together) = grads(&mut model, &texts, 3, all);
            let table = model.train(|p| all || config.trains(p)).unwrap();
            let whole = batch(&config, 3, &texts);
            let (mut alone_sum, mut alone_tokens, mut alone) = (0.0, 0, Grads::new(table));
            let mut start = 0;
            for (i, &(_, length)) in texts.iter().enumerate() {
                let rows = start..start + length;
                let one = pheye_model::Batch {
                    ids: whole.ids[rows.clone()].to_vec(),
                    targets: whole.targets[rows.clone()].to_vec(),
                    lengths: vec![length],
                    image: vec![whole.image[i]],
                    ..whole.clone()
                };
                let loss = model.loss_and_grads(&Cx::cpu(), &one, None, &mut alone).unwrap();
                alone_sum += loss.sum;
                alone_tokens += loss.tokens;
                start = rows.end;
            }
            assert_eq!(tokens, alone_tokens);
            assert!((sum - alone_sum).abs() < 1e-5 * sum, "{name}: {sum} {alone_sum}");
            assert!(close(&together, alone.flat.f32().unwrap()), "{name}, all parameters: {all}");
        }
    }
}

#[test]
fn recomputed_layers_give_the_same_bits() {
    let texts = [(0, 4), (1, 6)];
    for (name, config) in every_kind() {
        let mut model = random(&config, 6);
        let kept = grads(&mut model, &texts, 2, true);
        for recompute in [Recompute { vision: 1, text: 2 }, Recompute { vision: 9, text: 9 }] {
            model.set_recompute(recompute);
            assert_eq!(kept, grads(&mut model, &texts, 2, true), "{name}");
        }
    }
}

/// Along a random direction over all trained parameters, the loss changes as the gradient says.
#[test]
fn gradients_are_those_of_differences() {
    let texts = [(0, 5), (0, 3), (1, 4)];
    for (name, config) in every_kind() {
        let mut model = random(&config, 8);
        let (_, _, gradient) = grads(&mut model, &texts, 2, false);
        let table = model.train(|p| config.trains(p)).unwrap();
        let step = 2e-3f32;
        let direction = common::noise(gradient.len(), 99);
        let slope: f64 = table
            .entries()
            .iter()
            .flat_map(|(_, range)| range.clone())
            .map(|i| f64::from(gradient[i]) * f64::from(direction[i]))
            .sum();
        let batch = batch(&config, 2, &texts);
        let loss_at = |step: f32| {
            let mut moved = random(&config, 8);
            moved.train(|p| config.trains(p)).unwrap();
            for param in moved.params_mut() {
                let Some(range) = table.range(param) else { continue };
                let values = param.value.f32_mut().unwrap();
                values.iter_mut().zip(&direction[range]).for_each(|(value, d)| *value += step * d);
            }
            moved.loss(&Cx::cpu(), &batch).unwrap().sum
        };
        let measured = (loss_at(step) - loss_at(-step)) / (2.0 * f64::from(step));
        assert!((measured - slope).abs() < 0.02 * slope.abs().max(1.0), "{name}: {measured} {slope}");
    }
}

/// The tower's output can be kept while nothing in the tower is trained.
#[test]
fn features_of_a_frozen_tower_can_be_kept() {
    for (name, config) in every_kind() {
        let mut model = random(&config, 4);
        let table = model.train(|p| config.trains(p) && !p.starts_with("encoder.")).unwrap();
        assert!(!model.trains_tower());
        let batch = batch(&config, 2, &[(0, 4), (1, 3)]);
        let (cx, mut with, mut without) = (Cx::cpu(), Grads::new(table.clone()), Grads::new(table));
        let whole = model.loss_and_grads(&cx, &batch, None, &mut with).unwrap();
        let x = model.tower(&cx, &batch.pixels, 2).unwrap();
        let kept = model.loss_and_grads_of_tower(&cx, &x, &batch, &mut without).unwrap().read().unwrap();
        assert_eq!((whole, with.flat.f32().unwrap()), (kept, without.flat.f32().unwrap()), "{name}");
    }
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let (_, config) = every_kind().swap_remove(0);
    let mut model = random(&config, 1);
    let mut grads = Grads::new(model.train(|p| config.trains(p)).unwrap());
    let good = batch(&config, 2, &[(0, 3), (1, 2)]);
    let mut fault = |change: &dyn Fn(&mut pheye_model::Batch)| {
        let mut batch = good.clone();
        change(&mut batch);
        model.loss_and_grads(&Cx::cpu(), &batch, None, &mut grads).unwrap_err().to_string()
    };
    assert!(fault(&|b| b.images = 3).contains("tiles of all images: 2 given, 3 needed"));
    assert!(fault(&|b| b.targets.truncate(2)).contains("targets: 2 given, 5 needed"));
    assert!(fault(&|b| b.image = vec![1, 0]).contains("must ascend"));
    assert!(fault(&|b| b.ids[1] = 31).contains("31"));
    let long = batch(&config, 1, &[(0, 24)]);
    let error = model.loss(&Cx::cpu(), &long).unwrap_err().to_string();
    assert!(error.contains("position is 24"), "{error}");
}
