//! Attention as a plain formula, and on any device.

#![allow(dead_code)] // each test file uses some of it

use std::ops::Range;

use pheye_ops::Cx;
use pheye_ops::attention::{self, Heads, Kv, Span};
use pheye_tensor::{DType, Device};
use pheye_testkit::gpu::{download, round_bf16};
use pheye_testkit::{Formula, Real, uniform};

use crate::common::{sum, transpose, upload};

/// Numbers of rows of q and of k, and the spans. As a formula, a function of q, k and v, each [rows, heads·head_dim].
#[derive(Clone)]
pub(crate) struct Case {
    pub rows: usize,
    pub keys: usize,
    pub spans: Vec<Span>,
    pub heads: Heads,
    /// Whether each row of one tensor holds a key and its value.
    pub fused: bool,
}

pub(crate) fn span(q: Range<usize>, k: Range<usize>) -> Span {
    Span { q, k }
}

pub(crate) fn heads(heads: usize, head_dim: usize, causal: bool) -> Heads {
    Heads { heads, head_dim, scale: (head_dim as f32).sqrt().recip(), causal }
}

impl Formula for Case {
    /// The plain version stores scores and weights, and their gradients, as tensors between its operations.
    fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
        let (h, width) = (self.heads, self.heads.width());
        let mut y = vec![T::of(0.0); x[0].len()];
        for (s, head) in self.spans.iter().flat_map(|s| (0..h.heads).map(move |head| (s, head))) {
            let cut = |m: &[T], row: usize| m[row * width + head * h.head_dim..][..h.head_dim].to_vec();
            let rows = |m: &[T]| s.k.clone().map(|j| cut(m, j)).collect::<Vec<_>>();
            let (keys, columns) = (rows(&x[1]), transpose(&rows(&x[2]).concat(), h.head_dim));
            for (i, row) in s.q.clone().enumerate() {
                let q = cut(&x[0], row);
                let seen = self.seen(s, i).len();
                let score = |k: &Vec<T>| (T::dot(&q, k) * T::of(h.scale.into())).stored();
                let scores: Vec<T> = keys[..seen].iter().map(score).collect();
                let top = scores.iter().map(|s| s.value()).fold(f64::NEG_INFINITY, f64::max);
                let e: Vec<T> = scores.iter().map(|&s| (s - T::of(top)).exp()).collect();
                let total = sum(e.iter().copied());
                let p: Vec<T> = e.iter().map(|&e| (e / total).stored()).collect();
                let y = &mut y[row * width + head * h.head_dim..][..h.head_dim];
                for (y, column) in y.iter_mut().zip(columns.chunks(s.k.len().max(1))) {
                    if seen > 0 {
                        *y = T::dot(&p, &column[..seen]).stored();
                    }
                }
            }
        }
        y
    }
}

impl Case {
    /// A case with keys and values in two tensors.
    pub(crate) fn of(rows: usize, keys: usize, spans: &[Span], heads: Heads) -> Case {
        Case { rows, keys, spans: spans.to_vec(), heads, fused: false }
    }

    /// The keys that the i-th query of a span attends to.
    pub(crate) fn seen(&self, s: &Span, i: usize) -> Range<usize> {
        let last = if self.heads.causal { (s.k.len() + i + 1).saturating_sub(s.q.len()) } else { s.k.len() };
        s.k.start..s.k.start + last.min(s.k.len())
    }

    /// q, k and v, scaled for scores of a few units, so that the softmax is neither flat nor one-hot.
    pub(crate) fn inputs(&self) -> [(&'static str, Vec<f32>); 3] {
        let w = self.heads.width();
        let random = |seed, rows, bound: f32| uniform(seed, rows * w, -bound, bound);
        [("q", random(1, self.rows, 2.0)), ("k", random(2, self.keys, 2.0)), ("v", random(3, self.keys, 1.0))]
    }

    /// The values of the inputs, and the gradient of the output.
    pub(crate) fn values(&self) -> ([Vec<f32>; 3], Vec<f32>) {
        (self.inputs().map(|(_, x)| x), uniform(4, self.rows * self.heads.width(), -1.0, 1.0))
    }

    /// [`Case::values`] rounded to bf16.
    pub(crate) fn narrow(&self) -> ([Vec<f32>; 3], Vec<f32>) {
        let (mut x, mut dy) = self.values();
        x.iter_mut().chain([&mut dy]).for_each(|x| round_bf16(x));
        (x, dy)
    }

    /// Output and gradients of q, k and v on a device.
    pub(crate) fn run(&self, device: &Device, dtype: DType, x: &[Vec<f32>], dy: &[f32]) -> Vec<Vec<f32>> {
        let (cx, w) = (Cx::new(device.clone()), self.heads.width());
        let up = |cols: usize, x: &[f32]| upload(device, dtype, [x.len() / cols, cols], x);
        let side_by_side = || -> Vec<f32> {
            x[1].chunks(w).zip(x[2].chunks(w)).flat_map(|(k, v)| [k, v].concat()).collect()
        };
        let kv = match self.fused {
            true => Kv::Fused(up(2 * w, &side_by_side())),
            false => Kv::Split { k: up(w, &x[1]), v: up(w, &x[2]) },
        };
        let borrowed = match &kv {
            Kv::Split { k, v } => Kv::Split { k, v },
            Kv::Fused(kv) => Kv::Fused(kv),
        };
        let (q, dy) = (up(w, &x[0]), up(w, dy));
        let (y, saved) = attention::forward(&cx, &q, borrowed, &self.spans, &self.heads).unwrap();
        let (dq, dkv) = attention::backward(&cx, &saved, &dy, &self.spans, &self.heads).unwrap();
        let (dk, dv) = match &dkv {
            Kv::Split { k, v } => (download(k), download(v)),
            Kv::Fused(kv) => {
                let kv = download(kv);
                let half = |i| kv.chunks(w).skip(i).step_by(2).flatten().copied().collect();
                (half(0), half(1))
            }
        };
        vec![download(&y), download(&dq), dk, dv]
    }

    pub(crate) fn on_cpu(&self, x: &[Vec<f32>], dy: &[f32]) -> Vec<Vec<f32>> {
        self.run(&Device::Cpu, DType::F32, x, dy)
    }
}
