//! LoRA as a plain formula, and a LoRA linear on any device.

#![allow(dead_code)] // each test file uses some of it

use pheye_cpu::philox::{philox4x32_10, uniform, words};
use pheye_ops::Cx;
use pheye_ops::lora::{self, Adapter, Dropout, LoraLinear, Route, RowRange};
use pheye_tensor::{DType, Device, Param};
use pheye_testkit::gpu::download;
use pheye_testkit::{BEFORE, Formula, Ran, Real};

use crate::common::{added, linear as affine, param, place, product, upload};

/// Dropout whose RNG offset uses both 32-bit words.
pub(crate) const DROPOUT: Option<Dropout> = Some(Dropout { p: 0.25, seed: 77, rng_offset: 1 << 40 | 3 });

/// The index of the module.
pub(crate) const MODULE: u32 = 5;

/// The names of the inputs, for as many adapters as a case can have.
const NAMES: [&str; 13] = [
    "x", "weight", "bias", "A of 0", "B of 0", "A of 1", "B of 1", "A of 2", "B of 2", "A of 3", "B of 3",
    "A of 4", "B of 4",
];

/// A LoRA linear of x [m, k] and W [n, k]. As a formula, a function of x, W, the bias, then A and B of each adapter.
#[derive(Clone)]
pub(crate) struct Case {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// Rank and scale s of each adapter.
    pub adapters: Vec<Option<(usize, f32)>>,
    pub ranges: Vec<RowRange>,
    pub dropout: Option<Dropout>,
    /// Whether W and the bias, A, and B are trained.
    pub trained: [bool; 3],
}

/// Row ranges from (start, end, adapter).
pub(crate) fn ranges(all: &[(usize, usize, Option<usize>)]) -> Vec<RowRange> {
    all.iter().map(|&(from, to, adapter)| RowRange { rows: from..to, adapter }).collect()
}

impl Formula for Case {
    /// Rounds to the storage type what the unfused form stores between its operations.
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let (k, n) = (self.k, self.n);
        let [x, w, bias, adapters @ ..] = inputs else { unreachable!() };
        let stored: Vec<T> = x.iter().map(|x| x.stored()).collect();
        let mut y = product(&stored, w, k);
        y.iter_mut().enumerate().for_each(|(i, y)| *y = (*y + bias[i % n]).stored());
        for RowRange { rows, adapter } in &self.ranges {
            let Some((i, scale)) = adapter.and_then(|i| Some((i, self.adapters[i]?.1))) else { continue };
            let [a, b] = &adapters[2 * self.adapters[..i].iter().flatten().count()..][..2] else {
                unreachable!()
            };
            let drop = |i: usize| (x[i].stored() * T::of(self.factor(i))).stored();
            let dropped: Vec<T> = (rows.start * k..rows.end * k).map(drop).collect();
            let low: Vec<T> = product(&dropped, a, k).into_iter().map(T::stored).collect();
            let up = product(&low, b, a.len() / k);
            for (y, up) in y[rows.start * n..].iter_mut().zip(up) {
                *y = (*y + (up.stored() * T::of(scale.into())).stored()).stored();
            }
        }
        y
    }
}

impl Case {
    /// A case in which the first row takes no adapter, and the others take those of these ranks in turn.
    pub(crate) fn of(m: usize, k: usize, n: usize, ranks: &[usize]) -> Case {
        let adapters = ranks.iter().enumerate().map(|(i, &r)| Some((r, 2.0 - 0.75 * i as f32))).collect();
        let count = ranks.len();
        // The first row takes no adapter.
        let cut = |i: usize| (1 + (m - 1) * i / count).min(m);
        let ranges = (0..count).map(|i| RowRange { rows: cut(i)..cut(i + 1), adapter: Some(i) }).collect();
        Case { m, k, n, adapters, ranges, dropout: None, trained: [false, true, true] }
    }

    /// The route.
    pub(crate) fn route(&self) -> Route {
        Route { ranges: self.ranges.clone(), dropout: self.dropout }
    }

    /// The inputs of the formula; `values` takes a number of elements and a seed.
    pub(crate) fn inputs(&self, values: impl Fn(usize, u64) -> Vec<f32>) -> Vec<(&'static str, Vec<f32>)> {
        let Case { m, k, n, .. } = *self;
        let mut all = vec![values(m * k, 1), values(n * k, 2), values(n, 3)];
        for (&(r, _), i) in self.adapters.iter().flatten().zip(0..) {
            all.extend([values(r * k, 10 + i), values(n * r, 20 + i)]);
        }
        assert!(all.len() <= NAMES.len());
        NAMES.into_iter().zip(all).collect()
    }

    /// The dropout factor of element `i` of x.
    fn factor(&self, i: usize) -> f64 {
        let Some(Dropout { p, seed, rng_offset }) = self.dropout else { return 1.0 };
        let [low, high] = words(rng_offset);
        let word = philox4x32_10([(i / 4) as u32, MODULE, low, high], words(seed))[i % 4];
        if uniform(word) >= p { f64::from(1.0 / (1.0 - p)) } else { 0.0 }
    }

    /// The LoRA linear, on the CPU.
    pub(crate) fn layer(&self, inputs: &[Vec<f32>]) -> LoraLinear {
        let Case { k, n, .. } = *self;
        let mut pairs = inputs[3..].chunks(2);
        let mut adapter = |&(r, scale): &(usize, f32)| {
            let [a, b] = pairs.next().expect("A and B") else { unreachable!() };
            Adapter { a: param("A", [r, k], a), b: param("B", [n, r], b), scale }
        };
        let adapters = self.adapters.iter().map(|a| a.as_ref().map(&mut adapter)).collect();
        LoraLinear { base: affine(n, k, &inputs[1], Some(&inputs[2])), adapters, module: MODULE }
    }

    /// Whether a parameter is trained.
    pub(crate) fn trains(&self, p: &Param) -> bool {
        let [w, a, b] = self.trained;
        match &*p.name {
            "A" => a,
            "B" => b,
            _ => w,
        }
    }

    /// y, dx and the gradients of the trained parameters.
    pub(crate) fn run(&self, device: &Device, dtype: DType, inputs: &[Vec<f32>], dy: &[f32]) -> Ran {
        let (cx, mut p, route) = (Cx::new(device.clone()), self.layer(inputs), self.route());
        let mut grads = place(device, p.params_mut(), |p| self.trains(p));
        let x = upload(device, dtype, [self.m, self.k], &inputs[0]);
        let dy = upload(device, dtype, [self.m, self.n], dy);
        let (y, saved) = lora::forward(&cx, &x, &p, &route).unwrap();
        let dx = lora::backward(&cx, &saved, &dy, &p, &route, Some(&mut grads)).unwrap();
        let mut all = vec![("x", download(&dx))];
        let named = NAMES[1..].iter().copied().zip(p.params());
        let named: Vec<(&'static str, &Param)> = named.filter(|(_, p)| self.trains(p)).collect();
        all.extend(named.iter().map(|&(name, p)| (name, added(&grads, p))));
        grads.clear().unwrap();
        lora::backward_params(&cx, &saved, &dy, &p, &route, Some(&mut grads)).unwrap();
        let start = if let Device::Cpu = device { 0.0 } else { BEFORE };
        for ((name, p), (_, first)) in named.into_iter().zip(&all[1..]) {
            let near = |(a, b): (&f32, &f32)| (a + start - b).abs() <= 1e-5 * (1.0 + b.abs());
            assert!(added(&grads, p).iter().zip(first).all(near), "{name}: differs without dx");
        }
        Ran { y: download(&y), grads: all }
    }
}
