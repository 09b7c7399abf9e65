//! A few rows of A: dot products with the rows of Bᵀ, which are read once, straight from memory. This is how a token is
//! generated, so what counts is how many bytes of B arrive in a second.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::Start;
use super::kernel::{Element, Job, LANES8, Mat, Scales, widen8};
use super::pack::prefetch;

/// Bytes of a cache line.
const LINE: usize = 64;

impl Job<'_> {
    /// Columns `cols` of C by dot products, for A and Bᵀ with contiguous rows and at most six rows of A.
    ///
    /// # Safety
    /// As [`Job::block`].
    pub(super) unsafe fn dots<E: Element>(&self, b: Mat<'_, E>, cols: Range<usize>) {
        Arch::new().dispatch(Dots { job: self, b, cols });
    }
}

struct Dots<'a, 'b, E> {
    job: &'a Job<'b>,
    b: Mat<'a, E>,
    cols: Range<usize>,
}

impl<E: Element> WithSimd for Dots<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // As many sums at a time as registers hold; several rows of B, so that several streams of memory flow at once.
        match self.job.m {
            1 => self.columns::<S, 1, 4>(),
            2 => self.columns::<S, 2, 3>(),
            3 => self.columns::<S, 3, 2>(),
            4 => self.columns::<S, 4, 1>(),
            5 => self.columns::<S, 5, 1>(),
            _ => self.columns::<S, 6, 1>(),
        }
    }
}

impl<E: Element> Dots<'_, '_, E> {
    #[inline(always)]
    fn columns<S: Simd, const M: usize, const J: usize>(&self) {
        let mut cols = self.cols.clone();
        while cols.len() >= J {
            let j = cols.start;
            self.tile::<S, M, J>(j);
            cols.start += J;
        }
        cols.for_each(|j| self.tile::<S, M, 1>(j));
    }

    /// M rows and J columns of C from column `j` on.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const J: usize>(&self, j: usize) {
        let Dots { job, b, .. } = self;
        let k = job.ks.len();
        let x: [&[f32]; M] = std::array::from_fn(|i| &job.a.x[i * job.a.row_stride..][job.ks.clone()]);
        let w: [&[E]; J] = std::array::from_fn(|l| &b.x[(j + l) * b.col_stride..][job.ks.clone()]);
        let mut sums = [[[[0.0f32; LANES8]; 2]; J]; M];
        // A cache line of each row of B at a time.
        let line = LINE / size_of::<E>();
        let whole = k / line * line;
        for at in (0..whole).step_by(line) {
            let x = x.map(|x| &x[at..at + line]);
            for (l, w) in w.iter().enumerate() {
                // The next tile's rows follow these ones.
                prefetch(w.as_ptr().wrapping_add(at + J * b.col_stride));
                let w = &w[at..at + line];
                // Loops, not closures, here and below: what is not inlined knows no wide instructions.
                for pair in 0..line / LANES8 / 2 {
                    for half in 0..2 {
                        let e = 2 * pair + half;
                        let these = e * LANES8..(e + 1) * LANES8;
                        let wide = widen8::<S, E>(w[these.clone()].try_into().expect("eight"));
                        for i in 0..M {
                            let x: &[f32; LANES8] = x[i][these.clone()].try_into().expect("eight");
                            let sum = &mut sums[i][l][e % 2];
                            for lane in 0..LANES8 {
                                sum[lane] = x[lane].mul_add(wide[lane], sum[lane]);
                            }
                        }
                    }
                }
            }
        }
        for (i, (sums, x)) in sums.iter().zip(&x).enumerate() {
            for (l, (sums, w)) in sums.iter().zip(&w).enumerate() {
                let tail: f32 = x[whole..].iter().zip(&w[whole..]).map(|(x, w)| x * w.wide()).sum();
                let mut sum = across(sums) + tail;
                match b.scales {
                    Scales::None => (),
                    Scales::Cols(s) => sum *= s[j + l],
                    Scales::Rows(_) => unreachable!("`run` makes no dot products of a B with scales along k"),
                }
                // SAFETY: (i, j + l) lies inside C by the contract of `dots`.
                let c = unsafe { &mut *job.c.at(i * job.c_stride + j + l).0 };
                let from = match job.start {
                    Start::Zero => 0.0,
                    Start::Keep => *c,
                    Start::Bias(bias) => bias[j + l],
                };
                *c = from + job.alpha * sum;
            }
        }
    }
}

/// The sum over the lanes, halving.
#[inline(always)]
fn across([even, odd]: &[[f32; LANES8]; 2]) -> f32 {
    let mut x = [0.0; LANES8];
    for lane in 0..LANES8 {
        x[lane] = even[lane] + odd[lane];
    }
    for width in [4, 2, 1] {
        for lane in 0..width {
            x[lane] += x[lane + width];
        }
    }
    x[0]
}

#[cfg(test)]
mod tests {
    use super::super::kernel::Pointer;
    use super::super::{MatRef, gemm_here};
    use super::*;

    /// The path of processors whose vectors are not known.
    #[test]
    fn without_vectors_the_same() {
        let (k, n) = (197, 9);
        let small = |i: usize| (i * 11 % 31) as i8 - 15;
        let (b, scales): (Vec<i8>, Vec<f32>) =
            ((0..k * n).map(small).collect(), (0..n).map(|j| 1.0 / (1 << j) as f32).collect());
        for m in 1..=6 {
            let a: Vec<f32> = (0..m * k).map(|i| (i * 7 % 31) as f32 / 16.0 - 1.0).collect();
            let [mut c, mut want] = [(); 2].map(|()| vec![f32::NAN; m * n]);
            gemm_here(
                &mut want,
                n,
                Start::Zero,
                1.0,
                MatRef::f32(&a, m, k),
                MatRef::int8(&b, &scales, n, k).t(),
            );
            let a = Mat { x: &a[..], row_stride: k, col_stride: 1, scales: Scales::None };
            let c_at = Pointer(c.as_mut_ptr());
            let job = Job { c: c_at, c_stride: n, start: Start::Zero, alpha: 1.0, m, ks: 0..k, n, a };
            let b = Mat { x: &b[..], row_stride: 1, col_stride: k, scales: Scales::Cols(&scales) };
            Dots { job: &job, b, cols: 0..n }.with_simd(pulp::Scalar::new());
            // Sums of few binary digits: exact in any order.
            assert_eq!(c, want, "{m}");
        }
    }
}
