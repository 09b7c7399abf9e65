//! GEMM with up to six rows of A (GEMV for one row), as in decoding: dot products with the rows of Bᵀ, each
//! read once from memory and not packed. Memory bandwidth is the limit, so each thread reads a single
//! sequential stream, which hardware prefetchers handle better than several.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::Init;
use super::kernel::Job;
use super::pack::prefetch;
use crate::element::{Element, load_f32};
use crate::mat::{Scales, Typed};

/// Bytes in a cache line.
const CACHE_LINE: usize = 64;
/// The distance in bytes of software prefetches. Hardware prefetchers stop at page boundaries, and a row is
/// one or a few pages.
const PREFETCH_BYTES: usize = 4096;

impl Job<'_> {
    /// Computes columns `cols` of C by dot products, for A and Bᵀ with contiguous rows and at most six rows
    /// of A.
    ///
    /// # Safety
    /// The contract of [`Job::block`].
    pub(super) unsafe fn dots<E: Element>(&self, b: Typed<'_, E>, cols: Range<usize>) {
        Arch::new().dispatch(Dots { job: self, b, cols });
    }
}

struct Dots<'a, 'b, E> {
    job: &'a Job<'b>,
    b: Typed<'a, E>,
    cols: Range<usize>,
}

impl<E: Element> WithSimd for Dots<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many independent accumulators as the registers can hold.
        match self.job.m {
            1 => self.columns::<S, 1, 4>(simd),
            2 => self.columns::<S, 2, 4>(simd),
            3 => self.columns::<S, 3, 4>(simd),
            4 => self.columns::<S, 4, 2>(simd),
            5 => self.columns::<S, 5, 2>(simd),
            _ => self.columns::<S, 6, 2>(simd),
        }
    }
}

impl<E: Element> Dots<'_, '_, E> {
    /// Computes all columns for M rows of A, with P accumulators along k for each.
    #[inline(always)]
    fn columns<S: Simd, const M: usize, const P: usize>(&self, simd: S) {
        let Dots { job, b, .. } = self;
        let k = job.ks.len();
        let x: [&[f32]; M] = std::array::from_fn(|i| &job.a.x[i * job.a.row_stride..][job.ks.clone()]);
        let step = P * S::F32_LANES;
        let (steps, vectors) = (k / step * step, k / S::F32_LANES * S::F32_LANES);
        for j in self.cols.clone() {
            let w = &b.x[j * b.col_stride..][job.ks.clone()];
            let mut sums = [[simd.splat_f32s(0.0); P]; M];
            for at in (0..steps).step_by(step) {
                for line in (0..step * size_of::<E>()).step_by(CACHE_LINE) {
                    prefetch(w.as_ptr().wrapping_add(at).wrapping_byte_add(PREFETCH_BYTES + line));
                }
                // Loops, not closures: a closure that is not inlined is compiled without the wide instructions.
                for p in 0..P {
                    // SAFETY: the vector lies inside a full step, and so inside the rows.
                    unsafe { multiply_add(simd, &mut sums, p, &x, w, at + p * S::F32_LANES) };
                }
            }
            for at in (steps..vectors).step_by(S::F32_LANES) {
                // SAFETY: the vector lies inside the rows.
                unsafe { multiply_add(simd, &mut sums, 0, &x, w, at) };
            }
            for (i, (x, sums)) in x.iter().zip(sums).enumerate() {
                let mut all = simd.splat_f32s(0.0);
                for sum in sums {
                    all = simd.add_f32s(all, sum);
                }
                let tail: f32 = x[vectors..].iter().zip(&w[vectors..]).map(|(x, w)| x * w.widen()).sum();
                let mut sum = simd.reduce_sum_f32s(all) + tail;
                match b.scales {
                    Scales::None => (),
                    Scales::Cols(s) => sum *= s[j],
                    Scales::Rows(_) => unreachable!("`run` makes no dot products of a B with scales along k"),
                }
                // SAFETY: (i, j) lies inside C by the contract of `dots`.
                let c = unsafe { &mut *job.c.at(i * job.c_stride + j).0 };
                let from = match job.init {
                    Init::Zero => 0.0,
                    Init::Accumulate => *c,
                    Init::Bias(bias) => bias[j],
                };
                *c = from + job.alpha * sum;
            }
        }
    }
}

/// `sums[..][p] += x[..][at..] * w[at..]`, for one vector.
///
/// # Safety
/// The vector must lie inside all slices.
#[inline(always)]
unsafe fn multiply_add<S: Simd, E: Element, const M: usize, const P: usize>(
    simd: S,
    sums: &mut [[S::f32s; P]; M],
    p: usize,
    x: &[&[f32]; M],
    w: &[E],
    at: usize,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let wide = load_f32(simd, w.as_ptr().add(at));
        for (x, sums) in x.iter().zip(sums) {
            let x = x.as_ptr().add(at).cast::<S::f32s>().read_unaligned();
            sums[p] = simd.mul_add_e_f32s(x, wide, sums[p]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gemm_serial;
    use super::*;
    use crate::mat::MatRef;
    use crate::par::Pointer;

    /// The code paths for processors with narrower vectors than this one's, and for unknown processors.
    #[test]
    fn with_other_vectors_the_same() {
        let (k, n) = (197, 9);
        let small = |i: usize| (i * 11 % 31) as i8 - 15;
        let (b, scales): (Vec<i8>, Vec<f32>) =
            ((0..k * n).map(small).collect(), (0..n).map(|j| 1.0 / (1 << j) as f32).collect());
        for m in 1..=6 {
            let a: Vec<f32> = (0..m * k).map(|i| (i * 7 % 31) as f32 / 16.0 - 1.0).collect();
            let [mut c, mut want] = [(); 2].map(|()| vec![f32::NAN; m * n]);
            gemm_serial(
                &mut want,
                n,
                Init::Zero,
                1.0,
                MatRef::f32(&a, m, k),
                MatRef::int8(&b, &scales, n, k).t(),
            );
            let a = Typed { x: &a[..], row_stride: k, col_stride: 1, scales: Scales::None };
            let c_at = Pointer(c.as_mut_ptr());
            let job = Job { c: c_at, c_stride: n, init: Init::Zero, alpha: 1.0, m, ks: 0..k, n, a };
            let b = Typed { x: &b[..], row_stride: 1, col_stride: k, scales: Scales::Cols(&scales) };
            Dots { job: &job, b, cols: 0..n }.with_simd(pulp::Scalar::new());
            // The values have few binary digits, so their sums are exact in any order.
            assert_eq!(c, want, "{m}");
            #[cfg(target_arch = "x86_64")]
            if let Some(avx2) = pulp::x86::V3::try_new() {
                c.fill(f32::NAN);
                Simd::vectorize(
                    avx2,
                    Dots { job: &Job { c: Pointer(c.as_mut_ptr()), ..job }, b, cols: 0..n },
                );
                assert_eq!(c, want, "{m}, AVX2");
            }
        }
    }
}
