//! Patch and tile embeddings against their formulas.

mod common;

use common::{grad_of, param, product, same_on_any_threads, tensor, train_all, values};
use pheye_ops::linear::Linear;
use pheye_ops::lora::{Adapter, LoraLinear, Route, RowRange};
use pheye_ops::patch_embed::{self, PatchEmbed};
use pheye_ops::{Cx, Error, tile_embed};
use pheye_testkit::{Formula, Ran, Real, gradcheck, normal};
use proptest::prelude::*;

/// Pixels, W, class, position, then A and B for the tiles from `lora` on.
struct Patches {
    side: usize,
    patch: usize,
    d: usize,
    lora: usize,
}

impl Formula for Patches {
    fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
        let Patches { side, patch: p, d, lora } = *self;
        let (g, k) = (side / p, 3 * p * p);
        let tiles = x[0].len() / (3 * side * side);
        let mut y = Vec::new();
        for t in 0..tiles {
            y.extend(x[2].iter().zip(&x[3]).map(|(&c, &e)| c + e));
            for at in 0..g * g {
                let mut row = Vec::new();
                for (c, dy, dx) in (0..k).map(|i| (i / (p * p), i / p % p, i % p)) {
                    row.push(x[0][((t * 3 + c) * side + at / g * p + dy) * side + at % g * p + dx]);
                }
                let mut out = product(&row, &x[1], k);
                if t >= lora {
                    let more = product(&product(&row, &x[4], k), &x[5], x[4].len() / k);
                    out = out.into_iter().zip(more).map(|(y, m)| y + T::of(2.0) * m).collect();
                }
                y.extend(out.into_iter().zip(&x[3][(1 + at) * d..]).map(|(y, &e)| y + e));
            }
        }
        y
    }
}

/// Everything that patches give: tokens, and the gradients of all parameters in order.
fn patches(f: &Patches, x: &[Vec<f32>], dy: &[f32]) -> Vec<Vec<f32>> {
    let Patches { side, patch, d, lora } = *f;
    let (cx, t, r) = (Cx::cpu(), x[0].len() / (3 * side * side), x[5].len() / d);
    let adapter = Adapter {
        a: param("a", [r, 3, patch, patch], &x[4]),
        b: param("b", [d, r, 1, 1], &x[5]),
        scale: 2.0,
    };
    let base = Linear { weight: param("w", [d, 3, patch, patch], &x[1]), bias: None };
    let n = x[3].len() / d;
    let mut p = PatchEmbed {
        conv: LoraLinear { base, adapters: vec![None, Some(adapter)], module: 0 },
        class: param("class", [d], &x[2]),
        position: param("position", [n, d], &x[3]),
        patch,
    };
    let mut grads = train_all(p.params_mut());
    let ranges = [(0..lora, Some(0)), (lora..t, Some(1))].map(|(rows, adapter)| RowRange { rows, adapter });
    let route = Route { ranges: ranges.into(), dropout: None };
    let (y, saved) = patch_embed::forward(&cx, &tensor([t, 3, side, side], &x[0]), &p, &route).unwrap();
    assert_eq!(y.shape().dims(), [t, n, d]);
    patch_embed::backward(&cx, &saved, &tensor(y.shape(), dy), &p, &route, Some(&mut grads)).unwrap();
    let mut all = vec![values(&y)];
    let adapter = p.conv.adapters[1].as_ref().unwrap();
    let params = [&p.conv.base.weight, &p.class, &p.position, &adapter.a, &adapter.b];
    all.extend(params.map(|p| grad_of(&mut grads, p)));
    all
}

fn patch_inputs(f: &Patches, tiles: usize) -> Vec<Vec<f32>> {
    let (g, k, r) = (f.side / f.patch, 3 * f.patch * f.patch, 2);
    let lens = [tiles * 3 * f.side * f.side, f.d * k, f.d, (1 + g * g) * f.d, r * k, f.d * r];
    lens.iter().zip(1..).map(|(&len, seed)| normal(seed, len)).collect()
}

fn check_patches(f: Patches, tiles: usize) {
    let names = ["pixels", "weight", "class", "position", "A", "B"];
    let inputs: Vec<_> = names.into_iter().zip(patch_inputs(&f, tiles)).collect();
    gradcheck("patch_embed", &f, &inputs, |x, dy| {
        let mut all = patches(&f, x, dy).into_iter();
        Ran { y: all.next().unwrap(), grads: names.into_iter().skip(1).zip(all).collect() }
    });
}

#[test]
fn patches_with_an_adapter() {
    check_patches(Patches { side: 6, patch: 2, d: 5, lora: 1 }, 3);
}

#[test]
fn patches_on_any_threads() {
    let f = Patches { side: 32, patch: 8, d: 64, lora: 3 };
    let (x, dy) = (patch_inputs(&f, 20), normal(9, 20 * 17 * f.d));
    same_on_any_threads(|| patches(&f, &x, &dy));
}

#[test]
fn pixels_of_the_wrong_size_are_errors() {
    let base = Linear { weight: param("w", [2, 3, 2, 2], &[0.0; 24]), bias: None };
    let p = PatchEmbed {
        conv: LoraLinear { base, adapters: vec![], module: 0 },
        class: param("class", [2], &[0.0; 2]),
        position: param("position", [5, 2], &[0.0; 10]),
        patch: 2,
    };
    let run = |shape: [usize; 4]| {
        let x = tensor(shape, &vec![0.0; shape.iter().product()]);
        patch_embed::forward(&Cx::cpu(), &x, &p, &Route::default()).map(|(y, _)| y.shape())
    };
    assert_eq!(run([1, 3, 4, 4]).unwrap().dims(), [1, 5, 2]);
    assert_eq!(run([0, 3, 4, 4]).unwrap().dims(), [0, 5, 2]);
    for bad in [[1, 3, 6, 6], [1, 3, 4, 6], [1, 1, 4, 4], [1, 3, 5, 5]] {
        assert!(matches!(run(bad), Err(Error::Shapes { op: "patch_embed", .. })), "{bad:?}");
    }
}

/// Global, local, table.
struct Tiles {
    n: usize,
    t: usize,
    d: usize,
}

impl Formula for Tiles {
    fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
        let tile = self.n * self.d;
        let mut y = Vec::new();
        for b in 0..x[0].len() / tile {
            for j in 0..=self.t {
                let from = if j == 0 { &x[0][b * tile..] } else { &x[1][(b * self.t + j - 1) * tile..] };
                y.extend(from[..tile].iter().enumerate().map(|(i, &v)| v + x[2][j * self.d + i % self.d]));
            }
        }
        y
    }
}

/// Media, dglobal, dlocal, dtable.
fn tiles(f: &Tiles, b: usize, x: &[Vec<f32>], dy: &[f32]) -> Vec<Vec<f32>> {
    let (cx, &Tiles { n, t, d }) = (Cx::cpu(), f);
    let mut table = param("table", [x[2].len() / d, d], &x[2]);
    let mut grads = train_all(vec![&mut table]);
    let local = (t > 0).then(|| tensor([b * t, n, d], &x[1]));
    let media = tile_embed::forward(&cx, &tensor([b, n, d], &x[0]), local.as_ref(), &table).unwrap();
    assert_eq!(media.shape().dims(), [b, (1 + t) * n, d]);
    let (global, local) =
        tile_embed::backward(&cx, &tensor(media.shape(), dy), b, t, &table, Some(&mut grads)).unwrap();
    let local = local.as_ref().map_or(Vec::new(), values);
    vec![values(&media), values(&global), local, grad_of(&mut grads, &table)]
}

fn tile_inputs(f: &Tiles, b: usize) -> [Vec<f32>; 3] {
    let tile = b * f.n * f.d;
    [normal(1, tile), normal(2, f.t * tile), normal(3, 5 * f.d)]
}

fn check_tiles(f: Tiles, b: usize) {
    let names = ["global", "local", "table"];
    let inputs: Vec<_> = names.into_iter().zip(tile_inputs(&f, b)).collect();
    gradcheck("tile_embed", &f, &inputs, |x, dy| {
        let mut all = tiles(&f, b, x, dy).into_iter();
        Ran { y: all.next().unwrap(), grads: names.into_iter().zip(all).collect() }
    });
}

#[test]
fn tiles_with_and_without_local_ones() {
    check_tiles(Tiles { n: 3, t: 4, d: 2 }, 2);
    check_tiles(Tiles { n: 3, t: 0, d: 2 }, 2);
}

#[test]
fn tiles_on_any_threads() {
    let f = Tiles { n: 50, t: 4, d: 64 };
    let (x, dy) = (tile_inputs(&f, 7), normal(4, 7 * 5 * f.n * f.d));
    same_on_any_threads(|| tiles(&f, 7, &x, &dy));
}

#[test]
fn tiles_that_do_not_fit_are_errors() {
    let cx = Cx::cpu();
    let table = param("table", [2, 2], &[0.0; 4]);
    let global = tensor([2, 3, 2], &[0.0; 12]);
    for bad in [tensor([1, 3, 2], &[0.0; 6]), tensor([2, 2, 2], &[0.0; 8]), tensor([4, 3, 2], &[0.0; 24])] {
        let fault = tile_embed::forward(&cx, &global, Some(&bad), &table);
        assert!(matches!(fault, Err(Error::Shapes { op: "tile_embed", .. })), "{bad:?}");
    }
    assert!(tile_embed::backward(&cx, &global, 2, 2, &table, None).is_err());
}

proptest! {
    #![proptest_config(common::repeatable(24))]

    #[test]
    fn patches_of_any_shape(tiles in 1usize..3, g in 1usize..4, patch in 1usize..4, d in 1usize..5, lora in 0usize..3) {
        check_patches(Patches { side: g * patch, patch, d, lora: lora.min(tiles) }, tiles);
    }

    #[test]
    fn tiles_of_any_shape(b in 1usize..4, n in 1usize..4, t in 0usize..5, d in 1usize..4) {
        check_tiles(Tiles { n, t, d }, b);
    }
}
