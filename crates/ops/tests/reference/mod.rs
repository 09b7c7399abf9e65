//! Formulas written once over any kind of number: in f64 they are the truth, in f32 the naive version whose error sets
//! the tolerance, in dual numbers their own derivatives.
#![allow(dead_code, reason = "each test file uses its part")]

use std::ops::{Add, Div, Mul, Sub};

use pheye_cpu::philox::{philox4x32_10, uniform};
use pheye_tensor::{DType, Param, Tensor, bf16};

pub trait Real:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + std::iter::Sum
{
    fn of(x: f64) -> Self;
    fn value(self) -> f64;
    fn exp(self) -> Self;
}

macro_rules! real {
    ($($t:ty),*) => {$(
        impl Real for $t {
            fn of(x: f64) -> $t { x as $t }
            fn value(self) -> f64 { self as f64 }
            fn exp(self) -> $t { <$t>::exp(self) }
        }
    )*};
}
real!(f32, f64);

/// A number and its derivative by one input.
#[derive(Clone, Copy)]
pub struct Dual<T>(T, T);

impl<T: Real> Add for Dual<T> {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        Dual(self.0 + o.0, self.1 + o.1)
    }
}
impl<T: Real> Sub for Dual<T> {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        Dual(self.0 - o.0, self.1 - o.1)
    }
}
impl<T: Real> Mul for Dual<T> {
    type Output = Self;
    fn mul(self, o: Self) -> Self {
        Dual(self.0 * o.0, self.0 * o.1 + self.1 * o.0)
    }
}
impl<T: Real> Div for Dual<T> {
    type Output = Self;
    fn div(self, o: Self) -> Self {
        Dual(self.0 / o.0, (self.1 - self.0 / o.0 * o.1) / o.0)
    }
}
impl<T: Real> std::iter::Sum for Dual<T> {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Dual(T::of(0.0), T::of(0.0)), |a, b| a + b)
    }
}
impl<T: Real> Real for Dual<T> {
    fn of(x: f64) -> Self {
        Dual(T::of(x), T::of(0.0))
    }
    fn value(self) -> f64 {
        self.0.value()
    }
    fn exp(self) -> Self {
        let y = self.0.exp();
        Dual(y, y * self.1)
    }
}

/// y of some inputs, all flat.
pub trait Formula {
    fn y<T: Real>(&self, x: &[Vec<T>]) -> Vec<T>;
}

fn lift<T: Real>(x: &[Vec<f32>]) -> Vec<Vec<T>> {
    x.iter().map(|x| x.iter().map(|&x| T::of(x as f64)).collect()).collect()
}

/// The tolerance rule: largest error at most `factor`·(2·naive's + 10⁻⁶·the largest value).
fn close(what: &str, got: &[f32], naive: &[f64], truth: &[f64], factor: f64) {
    assert_eq!(got.len(), truth.len(), "{what}");
    let err =
        |x: &mut dyn Iterator<Item = f64>| x.zip(truth).fold(0.0, |m: f64, (x, t)| m.max((x - t).abs()));
    let naive = err(&mut naive.iter().copied());
    let largest = truth.iter().fold(0.0, |m: f64, t| m.max(t.abs()));
    let allowed = factor * (2.0 * naive + 1e-6 * largest);
    let got = got.iter().map(|&g| if g.is_nan() { f64::INFINITY } else { g as f64 });
    let err = err(&mut got.into_iter());
    assert!(
        err <= allowed,
        "{what}: error {err:.3e}, allowed {allowed:.3e} (naive {naive:.3e}, largest {largest:.3e})"
    );
}

pub fn check_forward(f: &impl Formula, x: &[Vec<f32>], got: &[f32]) {
    let values = |y: Vec<f64>| y;
    let naive = f.y::<f32>(x).into_iter().map(f64::from).collect::<Vec<_>>();
    close("forward", got, &naive, &values(f.y::<f64>(&lift(x))), 1.0);
}

/// Checks dinput[i] = got for each (i, got), when the gradient of y is `dy`.
pub fn check_grads(f: &impl Formula, x: &[Vec<f32>], dy: &[f32], got: &[(usize, &[f32])]) {
    for &(i, got) in got {
        let (naive, truth) = (grads::<f32>(f, x, dy, i), grads::<f64>(f, x, dy, i));
        close(&format!("gradient of input {i}"), got, &naive, &truth, 3.0);
    }
}

fn grads<T: Real>(f: &impl Formula, x: &[Vec<f32>], dy: &[f32], i: usize) -> Vec<f64> {
    let mut x = lift::<Dual<T>>(x);
    (0..x[i].len())
        .map(|e| {
            x[i][e].1 = T::of(1.0);
            let y = f.y(&x);
            x[i][e].1 = T::of(0.0);
            assert_eq!(y.len(), dy.len());
            y.iter().zip(dy).map(|(y, &g)| y.1 * T::of(g as f64)).sum::<T>().value()
        })
        .collect()
}

/// `len` numbers in −1..1 with mean about 0, the same for the same seed.
pub fn random(seed: u32, len: usize) -> Vec<f32> {
    (0..len).map(|i| 2.0 * uniform(philox4x32_10([i as u32, seed, 0, 0], [1, 2])[0]) - 1.0).collect()
}

pub fn tensor(shape: impl Into<pheye_tensor::Shape>, x: &[f32]) -> Tensor {
    Tensor::from_f32(shape, x).unwrap()
}

pub fn param(name: &str, shape: impl Into<pheye_tensor::Shape>, x: &[f32]) -> Param {
    Param::frozen(name, tensor(shape, x))
}

pub fn to_bf16(p: &mut Param) {
    p.value = p.value.to_dtype(DType::Bf16).unwrap();
}

pub fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect()
}

/// Runs `f` with 1 and with 3 threads and compares what it returns, bit by bit.
pub fn same_on_any_threads(f: impl Fn() -> Vec<Vec<f32>> + Sync) {
    let run = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(&f);
    let bits = |x: Vec<Vec<f32>>| x.into_iter().flatten().map(f32::to_bits).collect::<Vec<_>>();
    assert!(bits(run(1)) == bits(run(3)), "results differ between 1 and 3 threads");
}

/// x [m, k] times wᵀ, w [n, k].
pub fn product<T: Real>(x: &[T], w: &[T], k: usize) -> Vec<T> {
    let rows =
        x.chunks(k).flat_map(|x| w.chunks(k).map(move |w| x.iter().zip(w).map(|(&x, &w)| x * w).sum()));
    rows.collect()
}
