//! Patch embedding, a LoRA linear over rows of patches, on every device, compared with its formula.

mod common;
#[path = "common/lora_formula.rs"]
mod lora_formula;

use common::{added, param, place, same_on_any_threads, tensor, upload};
use lora_formula::{Case, ranges};
use pheye_ops::linear::Linear;
use pheye_ops::lora::{Dropout, LoraLinear, Route, RowRange};
use pheye_ops::patch_embed::{self, PatchEmbed};
use pheye_ops::{Cx, Error};
use pheye_tensor::{DType, Device};
use pheye_testkit::gpu::download;
use pheye_testkit::{Formula, Ran, Real, gradcheck, normal};
use proptest::prelude::*;

/// Tiles of g × g patches of `patch` × `patch` pixels. As a formula, a function of pixels, W, class, position, then A
/// and B of each adapter.
struct Patches {
    tiles: usize,
    g: usize,
    patch: usize,
    d: usize,
    /// Rank and scale s of each adapter.
    adapters: Vec<Option<(usize, f32)>>,
    /// The ranges of tiles and their adapters.
    ranges: Vec<RowRange>,
    dropout: Option<Dropout>,
}

impl Formula for Patches {
    fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
        let Patches { g, patch: p, d, .. } = *self;
        let [pixels, w, class, position, adapters @ ..] = x else { unreachable!() };
        let mut rows = Vec::new();
        for (t, at) in (0..self.tiles).flat_map(|t| (0..g * g).map(move |at| (t, at))) {
            for (c, dy, dx) in (0..3 * p * p).map(|i| (i / (p * p), i / p % p, i % p)) {
                rows.push(pixels[((t * 3 + c) * g * p + at / g * p + dy) * g * p + at % g * p + dx]);
            }
        }
        let conv = [&[rows, w.clone(), vec![T::of(0.0); d]], adapters].concat();
        let mut y = Vec::new();
        for tokens in self.rows().eval(&conv).chunks(g * g * d) {
            y.extend(class.iter().chain(tokens).zip(position).map(|(&x, &e)| (x + e).stored()));
        }
        y
    }
}

impl Patches {
    /// The LoRA linear over rows of patches.
    fn rows(&self) -> Case {
        let n = self.g * self.g;
        let ranges = self.ranges.iter().cloned();
        Case {
            m: self.tiles * n,
            k: 3 * self.patch * self.patch,
            n: self.d,
            adapters: self.adapters.clone(),
            ranges: ranges.map(|r| RowRange { rows: r.rows.start * n..r.rows.end * n, ..r }).collect(),
            dropout: self.dropout,
            trained: [true; 3],
        }
    }

    /// The inputs by name; `values` takes a number of elements and a seed.
    fn inputs(&self, values: impl Fn(usize, u64) -> Vec<f32>) -> Vec<(&'static str, Vec<f32>)> {
        let (n, d) = (self.g * self.g, self.d);
        let mut all = self.rows().inputs(&values);
        let class = [("class", values(d, 31)), ("position", values((1 + n) * d, 32))];
        all.splice(2..3, class);
        all[0].0 = "pixels";
        all
    }

    /// Tokens, and the gradients of all parameters.
    fn run(&self, device: &Device, dtype: [DType; 2], x: &[Vec<f32>], dy: &[f32]) -> Ran {
        let Patches { tiles, g, patch, d, .. } = *self;
        let (cx, n) = (Cx::new(device.clone()), 1 + g * g);
        let bias = vec![0.0; d];
        let conv_inputs = [&[x[0].clone(), x[1].clone(), bias], &x[4..]].concat();
        let mut conv = self.rows().layer(&conv_inputs);
        let weight = param("weight", [d, 3, patch, patch], &x[1]);
        conv.base = Linear { weight, bias: None };
        for adapter in conv.adapters.iter_mut().flatten() {
            let (a, b) = (&mut adapter.a.value, &mut adapter.b.value);
            let r = a.shape().dims()[0];
            (*a, *b) = (a.view(0, [r, 3, patch, patch]).unwrap(), b.view(0, [d, r, 1, 1]).unwrap());
        }
        let class = param("class", [d], &x[2]);
        let mut p = PatchEmbed { conv, class, position: param("position", [n, d], &x[3]), patch };
        let mut grads = place(device, p.params_mut(), |_| true);
        let pixels = upload(device, dtype[0], [tiles, 3, g * patch, g * patch], &x[0]);
        let route = Route { ranges: self.ranges.clone(), dropout: self.dropout };
        let (y, saved) = patch_embed::forward(&cx, &pixels, &p, &route).unwrap();
        assert_eq!(y.shape().dims(), [tiles, n, d]);
        let dy = upload(device, dtype[1], y.shape(), dy);
        patch_embed::backward(&cx, &saved, &dy, &p, &route, Some(&mut grads)).unwrap();
        let adapters = p.conv.adapters.iter().flatten().flat_map(|a| [&a.a, &a.b]);
        let params = [&p.conv.base.weight, &p.class, &p.position].into_iter().chain(adapters);
        let names = self.inputs(|_, _| vec![]).into_iter().skip(1).map(|(name, _)| name);
        let all = names.zip(params.map(|p| added(&grads, p)));
        Ran { grads: all.collect(), y: download(&y) }
    }
}

/// A case in which the tiles from `lora` on take the second of two adapters, and the first adapter is `None`.
fn with_an_adapter(tiles: usize, g: usize, patch: usize, d: usize, lora: usize) -> Patches {
    let ranges = ranges(&[(0, lora, Some(0)), (lora, tiles, Some(1))]);
    Patches { tiles, g, patch, d, adapters: vec![None, Some((2, 2.0))], ranges, dropout: None }
}

const F32: [DType; 2] = [DType::F32; 2];

fn check(f: &Patches) {
    let inputs = f.inputs(|n, seed| normal(seed, n));
    gradcheck("patch_embed", f, &inputs, |x, dy| {
        let ran = f.run(&Device::Cpu, F32, x, dy);
        assert_eq!(ran.grads.len(), x.len() - 1);
        ran
    });
}

#[test]
fn with_two_adapters() {
    check(&with_an_adapter(3, 3, 2, 5, 1));
}

#[test]
fn on_any_threads() {
    let f = with_an_adapter(20, 4, 8, 64, 3);
    let x: Vec<Vec<f32>> = f.inputs(|n, seed| normal(seed, n)).into_iter().map(|(_, x)| x).collect();
    let dy = normal(9, 20 * 17 * f.d);
    same_on_any_threads(|| {
        let Ran { y, grads } = f.run(&Device::Cpu, F32, &x, &dy);
        [y].into_iter().chain(grads.into_iter().map(|(_, g)| g)).collect()
    });
}

proptest! {
    #![proptest_config(common::repeatable(24))]

    #[test]
    fn any_shape(tiles in 1usize..3, g in 1usize..4, patch in 1usize..4, d in 1usize..5, lora in 0usize..3) {
        check(&with_an_adapter(tiles, g, patch, d, lora.min(tiles)));
    }
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

/// The GPU kernels.
#[cfg(feature = "emulator")]
mod gpu {
    use lora_formula::DROPOUT;
    use pheye_testkit::gpu::bf16_values;
    use pheye_testkit::{Rounded, gpucheck};

    use super::*;

    /// The first tile takes the first adapter, the others take the second.
    fn check(tiles: usize, g: usize, patch: usize, d: usize, ranks: [usize; 2], pixels: DType) {
        let adapters = vec![Some((ranks[0], 2.0)), Some((ranks[1], 1.25))];
        let ranges = ranges(&[(0, 1, Some(0)), (1, tiles, Some(1))]);
        let f = Patches { tiles, g, patch, d, adapters, ranges, dropout: DROPOUT };
        let name = format!("patches: {tiles} tiles of {g} x {g}");
        gpucheck::<Rounded<f64>>(&name, &f, &f.inputs(bf16_values), &["pixels"], |device, x, dy| {
            let ran = f.run(device, [pixels, DType::Bf16], x, dy);
            assert_eq!(ran.grads.len(), x.len() - 1);
            ran
        });
    }

    #[test]
    fn patches_of_fourteen() {
        check(3, 2, 14, 40, [8, 16], DType::Bf16);
    }

    #[test]
    fn odd_patches() {
        check(2, 3, 5, 17, [2, 3], DType::F32);
        check(1, 1, 4, 8, [1, 1], DType::F32);
    }
}
