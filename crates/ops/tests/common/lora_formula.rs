//! LoRA as the plain formula, in f64 or with every intermediate tensor rounded.

#![allow(dead_code)] // each test file uses some of it

use std::ops::Range;

use pheye_cpu::philox::{philox4x32_10, uniform, words};
use pheye_ops::lora::{Adapter, Dropout, LoraLinear, Route, RowRange};
use pheye_testkit::gpu::bf16_values;

use crate::common::{linear as affine, param};

/// A dropout whose stream takes both words.
pub const DROPOUT: Option<Dropout> = Some(Dropout { p: 0.25, seed: 77, rng_offset: 1 << 40 | 3 });

#[derive(Clone)]
/// A LoRA linear of x [m, k] and W [n, k].
pub struct Case {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// Rank and s of each adapter.
    pub adapters: Vec<(usize, f32)>,
    pub ranges: Vec<(Range<usize>, usize)>,
    pub dropout: Option<Dropout>,
    /// Whether W, A, B are trained.
    pub trained: [bool; 3],
}

/// The module's number.
pub const MODULE: u32 = 5;
/// What gradients start from.
pub const START: f32 = 0.25;

/// Its inputs, all of them numbers that bf16 holds.
pub struct Values {
    pub x: Vec<f32>,
    pub w: Vec<f32>,
    pub b: Vec<f32>,
    pub dy: Vec<f32>,
    pub a_b: Vec<[Vec<f32>; 2]>,
}

/// a b of [m, k] and [k, n], each entry by a function, in f64.
fn multiply(
    [m, n, k]: [usize; 3],
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let entry = |i| (0..k).map(|l| a(i / n, l) * b(l, i % n)).sum();
    (0..m * n).map(entry).collect()
}

impl Case {
    /// A case whose rows, but for the first, take the adapters of these ranks in turn.
    pub fn of(m: usize, k: usize, n: usize, ranks: &[usize]) -> Case {
        let adapters: Vec<_> = ranks.iter().enumerate().map(|(i, &r)| (r, 2.0 - 0.75 * i as f32)).collect();
        let count = ranks.len();
        // The first row takes no adapter.
        let cut = |i: usize| (1 + (m - 1) * i / count).min(m);
        let ranges = (0..count).map(|i| (cut(i)..cut(i + 1), i)).collect();
        Case { m, k, n, adapters, ranges, dropout: None, trained: [false, true, true] }
    }

    /// The route.
    pub fn route(&self) -> Route {
        let ranges = self.ranges.iter().cloned().map(|(rows, i)| RowRange { rows, adapter: Some(i) });
        Route { ranges: ranges.collect(), dropout: self.dropout }
    }

    /// Random inputs.
    pub fn values(&self) -> Values {
        let Case { m, k, n, .. } = *self;
        let adapter = |(i, &(r, _)): (usize, &(usize, f32))| {
            [(r * k, 10), (n * r, 20)].map(|(len, s)| bf16_values(len, s + i as u64))
        };
        Values {
            x: bf16_values(m * k, 1),
            w: bf16_values(n * k, 2),
            b: bf16_values(n, 3),
            dy: bf16_values(m * n, 4),
            a_b: self.adapters.iter().enumerate().map(adapter).collect(),
        }
    }

    /// The factor of element `i` of x.
    pub fn factor(&self, i: usize) -> f64 {
        let Some(Dropout { p, seed, rng_offset }) = self.dropout else { return 1.0 };
        let [low, high] = words(rng_offset);
        let word = philox4x32_10([(i / 4) as u32, MODULE, low, high], words(seed))[i % 4];
        if uniform(word) >= p { f64::from(1.0 / (1.0 - p)) } else { 0.0 }
    }

    /// y, dx, dW, db, then dA and dB of each adapter; what the unfused form stores goes through `round`.
    pub fn formula(&self, v: &Values, round: impl Fn(f64) -> f64 + Copy) -> Vec<Vec<f64>> {
        let Case { m, k, n, .. } = *self;
        let get = |x: &[f32], i: usize| f64::from(x[i]);
        let dropped: Vec<f64> = (0..m * k).map(|i| round(get(&v.x, i) * self.factor(i))).collect();
        let xw = multiply([m, n, k], |i, l| get(&v.x, i * k + l), |l, j| get(&v.w, j * k + l));
        let mut y: Vec<f64> = xw.iter().enumerate().map(|(i, y)| round(y + get(&v.b, i % n))).collect();
        let dyw = multiply([m, k, n], |i, l| get(&v.dy, i * n + l), |l, j| get(&v.w, l * k + j));
        let mut dx: Vec<f64> = dyw.into_iter().map(round).collect();
        let dw = multiply([n, k, m], |i, l| get(&v.dy, l * n + i), |l, j| get(&v.x, l * k + j));
        let db = multiply([1, n, m], |_, _| 1.0, |l, j| get(&v.dy, l * n + j));
        let mut grads: Vec<Vec<f64>> =
            self.adapters.iter().flat_map(|&(r, _)| [vec![0.0; r * k], vec![0.0; n * r]]).collect();
        for (rows, i) in &self.ranges {
            let ((r, s), [a, b], m0) = (self.adapters[*i], &v.a_b[*i], rows.start);
            let (m, s) = (rows.len(), f64::from(s));
            let low = multiply([m, r, k], |i, l| dropped[(m0 + i) * k + l], |l, j| get(a, j * k + l));
            let low: Vec<f64> = low.into_iter().map(round).collect();
            let up = multiply([m, n, r], |i, l| low[i * r + l], |l, j| get(b, j * r + l));
            for (i, up) in up.into_iter().enumerate() {
                let y = &mut y[m0 * n + i];
                *y = round(*y + round(s * round(up)));
            }
            let scaled = |i: usize, j: usize| round(s * get(&v.dy, (m0 + i) * n + j));
            let dlow = multiply([m, r, n], scaled, |l, j| get(b, l * r + j));
            let dlow: Vec<f64> = dlow.into_iter().map(round).collect();
            let back = multiply([m, k, r], |i, l| dlow[i * r + l], |l, j| get(a, l * k + j));
            for (i, back) in back.into_iter().enumerate() {
                let at = m0 * k + i;
                dx[at] = round(dx[at] + round(round(back) * self.factor(at)));
            }
            let da = multiply([r, k, m], |i, l| dlow[l * r + i], |l, j| dropped[(m0 + l) * k + j]);
            let db = multiply([n, r, m], |i, l| scaled(l, i), |l, j| low[l * r + j]);
            for (sum, part) in [(2 * i, da), (2 * i + 1, db)] {
                grads[sum].iter_mut().zip(part).for_each(|(s, p)| *s += p);
            }
        }
        let start = f64::from(START);
        let gradients = [dw, db].into_iter().chain(grads);
        let gradients = gradients.map(|g| g.into_iter().map(|x| x + start).collect());
        [y, dx].into_iter().chain(gradients).collect()
    }

    /// The linear with its adapters, on the CPU.
    pub fn layer(&self, v: &Values) -> LoraLinear {
        let Case { k, n, .. } = *self;
        let adapters = self.adapters.iter().zip(&v.a_b).map(|(&(r, scale), [a, b])| {
            Some(Adapter { a: param("A", [r, k], a), b: param("B", [n, r], b), scale })
        });
        LoraLinear { base: affine(n, k, &v.w, Some(&v.b)), adapters: adapters.collect(), module: MODULE }
    }
}
