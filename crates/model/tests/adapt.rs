//! A model at another level or interval, or with patches of another size, keeps what it knows, and new tiles start as
//! the global image.

mod common;

use common::{config, lively};
use pheye_model::{Changes, Config, Pheye};
use pheye_ops::Cx;
use pheye_tensor::Tensor;

fn at(level: usize) -> Config {
    let mut config = config();
    config.connector.level = level;
    config
}

/// Another level or interval, with the patches of [`config`].
fn to(level: usize, cross_interval: usize) -> Changes {
    Changes { level, cross_interval, ..Changes::to(&config()) }
}

fn values(model: &mut Pheye, name: &str) -> Vec<f32> {
    let found =
        model.params_mut().into_iter().find(|p| p.name == name).map(|p| p.value.to_vec_f32().unwrap());
    found.unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn tiles_start_as_the_global_image() {
    let mut one = lively(&at(1));
    let embedding = "vision_encoder.connector.embedding.weight";
    let row = values(&mut one, embedding);
    let (side, d) = (one.config().vision.image_size, one.config().vision.hidden_size);
    let pixels: Vec<f32> = (0..3 * side * side).map(|i| (i as f32).sin()).collect();
    let cx = Cx::cpu();
    let global = one.encode(&cx, &Tensor::from_f32([1, 3, side, side], &pixels).unwrap(), 1).unwrap();
    let mut two = one.adapted(to(2, 1), 7).unwrap();
    assert_eq!(two.config().connector.level, 2);
    assert_eq!(two.config().lora_local, two.config().lora_global);
    let rows = values(&mut two, embedding);
    assert_eq!(rows[..d], row[..d], "the row of the global image is kept");
    for (i, value) in rows.iter().enumerate().skip(d) {
        assert!((value - row[i % d]).abs() < 0.15 && *value != row[i % d], "row {}: {value}", i / d);
    }
    // With the embedding of the global image for all views, five equal views have equal tokens.
    for param in two.params_mut() {
        if param.name == embedding {
            param.value = Tensor::from_f32(param.value.shape(), &row[..d].repeat(rows.len() / d)).unwrap();
        }
    }
    let all = two.encode(&cx, &Tensor::from_f32([5, 3, side, side], &pixels.repeat(5)).unwrap(), 1).unwrap();
    let (all, global) = (all.to_vec_f32().unwrap(), global.to_vec_f32().unwrap());
    for view in all.chunks_exact(global.len()) {
        assert!(view.iter().zip(&global).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn what_tiles_have_learned_is_kept() {
    let mut two = lively(&at(2));
    let names: Vec<String> = two.params_mut().iter().map(|p| p.name.clone()).collect();
    let before: Vec<Vec<f32>> = names.iter().map(|name| values(&mut two, name)).collect();
    let d = two.config().vision.hidden_size;
    let mut three = two.adapted(to(3, 1), 1).unwrap();
    for (name, before) in names.iter().zip(before) {
        let after = values(&mut three, name);
        match name.ends_with("connector.embedding.weight") {
            true => assert_eq!(after[..5 * d], before[..5 * d]),
            false => assert_eq!(after, before, "{name}"),
        }
    }
    assert!(three.adapted(to(5, 1), 1).is_err());
}

#[test]
fn blocks_of_the_layers_that_keep_theirs_stay() {
    let mut all =
        lively(&Config { connector: pheye_xattn::Config { cross_interval: 1, ..at(2).connector }, ..at(2) });
    let before: Vec<String> = all.params_mut().iter().map(|p| p.name.clone()).collect();
    let kept: Vec<_> = before.iter().map(|name| values(&mut all, name)).collect();
    let mut half = all.adapted(to(2, 2), 3).unwrap();
    let after: Vec<String> = half.params_mut().iter().map(|p| p.name.clone()).collect();
    assert!(after.len() < before.len());
    for name in &after {
        let i = before.iter().position(|other| other == name).unwrap_or_else(|| panic!("{name} is new"));
        assert_eq!(values(&mut half, name), kept[i], "{name}");
    }
    assert!(after.iter().any(|name| name.contains("cross_attn_layers.1.")));
    assert!(!after.iter().any(|name| name.contains("cross_attn_layers.0.")));
}

/// Patches of twice and of half the side, of an image that is enlarged or reduced by as much.
#[test]
fn patches_of_another_size_see_the_same() {
    let before = config();
    let (side, patch) = (before.vision.image_size, before.vision.patch_size);
    assert!(patch % 2 == 0);
    let cx = Cx::cpu();
    // Pairs of equal pixels, so that halving loses nothing.
    let pixel = |c: usize, y: usize, x: usize| ((c * 91 + y / 2 * 37 + x / 2) as f32).sin();
    let image = |side: usize, of: &dyn Fn(usize, usize, usize) -> f32| {
        let all: Vec<f32> =
            (0..3 * side * side).map(|i| of(i / side / side, i / side % side, i % side)).collect();
        Tensor::from_f32([1, 3, side, side], &all).unwrap()
    };
    let one = || lively(&at(1));
    let media = |model: &Pheye, pixels: &Tensor| model.encode(&cx, pixels, 1).unwrap().to_vec_f32().unwrap();
    let wanted = media(&one(), &image(side, &pixel));
    let resized = |patch_size| one().adapted(Changes { patch_size, ..to(1, 1) }, 3).unwrap();
    let double = resized(2 * patch);
    assert_eq!(double.config().vision.image_size, 2 * side);
    let half = resized(patch / 2);
    let found = [
        media(&double, &image(2 * side, &|c, y, x| pixel(c, y / 2, x / 2))),
        media(&half, &image(side / 2, &|c, y, x| pixel(c, 2 * y, 2 * x))),
    ];
    for found in found {
        assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-4));
    }
    // A patch of 3/2: the mean of an image stays.
    if patch == 4 {
        let flat = |side: usize| image(side, &|c, _, _| c as f32);
        let found = media(&resized(6), &flat(side / 4 * 6));
        let wanted = media(&one(), &flat(side));
        assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-4));
    }
    assert!(one().adapted(Changes { patch_size: 0, ..to(1, 1) }, 3).is_err());
}
