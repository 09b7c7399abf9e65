//! The GEMM for one part of C: packs panels of B for the L1 cache, and runs the microkernel, a loop over k that holds a
//! tile of C in registers. The block sizes are named as in BLIS; see the module `gemm`.
//!
//! NR is two vectors, so it depends on the processor. MC and NC follow from KC: a shorter k leaves room for more rows
//! of A and more columns of B, so their products with KC are the constants here.

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use pulp::{Arch, Simd, WithSimd};

use super::Init;
use super::pack::{pack_a, pack_panel, pack_whole_panels, prefetch, prefetch_panel};
use crate::element::Element;
use crate::mat::{Scales, Typed};
use crate::par::Pointer;

/// MR, the rows of a micro-tile: with two vectors of columns, 12 of 16 registers are accumulators.
pub(super) const MR: usize = 6;
/// KC, the steps along k between updates of C. A panel of B (16 columns on AVX2) then streams from the L2 cache past
/// the few rows of A that stay in the L1 cache. Half as many steps would move more data, because C would be written
/// twice as often.
const KC: usize = 512;
/// KC·NC, the elements of B packed at once, sized for a part of the L2 cache, and MC·KC, the elements of A that stay in
/// the L1 cache while they are multiplied by the packed B.
const KC_NC: usize = 48 << 10;
const MC_KC: usize = 3 << 10;
/// Up to this many steps of k, writing C dominates the memory traffic, so its rows are written from end to end.
const SHALLOW_STEPS: usize = 32;

/// A GEMM without its B operand. Strides and lengths have been checked.
pub(super) struct Job<'a> {
    pub c: Pointer,
    pub c_stride: usize,
    pub init: Init<'a>,
    pub alpha: f32,
    pub m: usize,
    pub ks: Range<usize>,
    pub n: usize,
    pub a: Typed<'a, f32>,
}

/// Panels start on a cache line, so that no vector load crosses one.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct CacheLine([f32; 16]);

impl CacheLine {
    pub(super) const LEN: usize = 16;
}

thread_local! {
    pub(super) static SCRATCH: RefCell<Vec<CacheLine>> = const { RefCell::new(Vec::new()) };
}

impl Job<'_> {
    /// Computes rows `rows` and columns `cols` of C.
    ///
    /// # Safety
    /// The ranges must lie inside C and the matrices inside their slices, and nobody else may access this
    /// part of C.
    pub(super) unsafe fn block<E: Element>(&self, b: Typed<'_, E>, rows: Range<usize>, cols: Range<usize>) {
        SCRATCH.with_borrow_mut(|scratch| Arch::new().dispatch(Block { job: self, b, rows, cols, scratch }));
    }
}

struct Block<'a, 'b, E> {
    job: &'a Job<'b>,
    b: Typed<'a, E>,
    rows: Range<usize>,
    cols: Range<usize>,
    scratch: &'a mut Vec<CacheLine>,
}

impl<E: Element> WithSimd for Block<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Block { job, b, rows, cols, scratch } = self;
        let (nr, ks) = (2 * S::F32_LANES, job.ks.clone());
        let kc = KC.min(ks.len());
        let nc = (KC_NC / kc / nr).max(1) * nr;
        let packs_a = job.a.col_stride != 1;
        let of_b = nc.min(cols.len().next_multiple_of(nr)) * kc;
        let len = of_b + if packs_a { rows.len() * kc } else { 0 };
        if scratch.len() * CacheLine::LEN < len {
            scratch.resize(len.div_ceil(CacheLine::LEN), CacheLine::zeroed());
        }
        let (packed_b, packed_a) = bytemuck::cast_slice_mut(scratch).split_at_mut(of_b);
        // Rows of B that are used only once or twice are not worth packing.
        let unpacked = if b.col_stride == 1 && rows.len() <= 2 * MR { E::as_f32_slice(b.x) } else { None };
        for k0 in ks.clone().step_by(KC) {
            let depth = KC.min(ks.end - k0);
            if packs_a {
                pack_a(packed_a, job.a, rows.clone(), k0..k0 + depth);
            }
            let mc = if depth <= SHALLOW_STEPS { MR } else { (MC_KC / depth / MR).max(1) * MR };
            // The steps and the first column of the panel that is NC columns after the panel at j.
            let next_panel = |k0: usize, j: usize| match j + nc < cols.end {
                true => (k0..k0 + depth, j + nc),
                false => {
                    let next = ks.end.min(k0 + depth);
                    (next..ks.end.min(next + KC), cols.start + (j - cols.start) % nc)
                }
            };
            for j0 in cols.clone().step_by(nc) {
                let js = j0..cols.end.min(j0 + nc);
                let whole = match unpacked.is_none() && b.col_stride == 1 && matches!(b.scales, Scales::None)
                {
                    true => js.end - js.len() % nr,
                    false => j0,
                };
                pack_whole_panels::<S, E>(packed_b, nr, b, k0..k0 + depth, j0..whole);
                for j in (whole..js.end).step_by(nr) {
                    let (n, vectors) = panel_extent::<S>(j, &js);
                    if unpacked.is_none() || n < vectors * S::F32_LANES {
                        let panel = &mut packed_b[(j - j0) * depth..];
                        pack_panel::<S, E>(panel, vectors * S::F32_LANES, b, k0..k0 + depth, j..j + n);
                    }
                }
                for i0 in rows.clone().step_by(mc) {
                    for j in js.clone().step_by(nr) {
                        let (n, vectors) = panel_extent::<S>(j, &js);
                        let from = b;
                        let (b, b_step) = match unpacked.filter(|_| n == vectors * S::F32_LANES) {
                            Some(x) => (x[k0 * b.row_stride + j..].as_ptr(), b.row_stride),
                            None => (packed_b[(j - j0) * depth..].as_ptr(), vectors * S::F32_LANES),
                        };
                        if i0 == rows.start && unpacked.is_none() {
                            let (ks, j) = next_panel(k0, j);
                            prefetch_panel(from, ks, j..cols.end.min(j + n));
                        }
                        for i in (i0..rows.end.min(i0 + mc)).step_by(MR) {
                            let m = MR.min(rows.end - i);
                            let (a, a_row, a_step) = if packs_a {
                                (packed_a[(i - rows.start) * depth..].as_ptr(), 1, m)
                            } else {
                                (
                                    job.a.x.as_ptr().wrapping_add(i * job.a.row_stride + k0),
                                    job.a.row_stride,
                                    1,
                                )
                            };
                            let first = k0 == ks.start;
                            let tile = Tile { job, simd, i, j, n, first, depth, a, a_row, a_step, b, b_step };
                            // A function call, so that tiles are compiled only once for all element types of B.
                            simd.vectorize(Run { tile, m, vectors });
                        }
                    }
                }
            }
        }
    }
}

/// The columns of the panel at `j`, and the number of vectors that they take.
#[inline(always)]
pub(super) fn panel_extent<S: Simd>(j: usize, js: &Range<usize>) -> (usize, usize) {
    let n = (2 * S::F32_LANES).min(js.end - j);
    (n, n.div_ceil(S::F32_LANES))
}

/// A microkernel call: the rows, and the vectors of columns, of a tile. The tile lies inside C by the
/// contract of [`Job::block`], and A and B have `depth` steps.
pub(super) struct Run<'a, 'b, S> {
    pub tile: Tile<'a, 'b, S>,
    pub m: usize,
    pub vectors: usize,
}

impl<S: Simd> WithSimd for Run<'_, '_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<T: Simd>(self, _: T) {
        // SAFETY: guaranteed by the contract of the type.
        unsafe { self.tile.run_sized(self.m, self.vectors) }
    }
}

pub(super) struct Tile<'a, 'b, S> {
    pub job: &'a Job<'b>,
    pub simd: S,
    pub i: usize,
    pub j: usize,
    pub n: usize,
    pub first: bool,
    pub depth: usize,
    pub a: *const f32,
    pub a_row: usize,
    pub a_step: usize,
    pub b: *const f32,
    pub b_step: usize,
}

impl<S: Simd> Tile<'_, '_, S> {
    /// Computes `m` rows and `vectors` vectors of columns of C.
    ///
    /// # Safety
    /// The contract of [`Tile::run`].
    #[inline(always)]
    unsafe fn run_sized(self, m: usize, vectors: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match (vectors, m) {
                (2, 6) => self.run::<6, 2>(),
                (2, 5) => self.run::<5, 2>(),
                (2, 4) => self.run::<4, 2>(),
                (2, 3) => self.run::<3, 2>(),
                (2, 2) => self.run::<2, 2>(),
                (2, _) => self.run::<1, 2>(),
                (_, 6) => self.run::<6, 1>(),
                (_, 5) => self.run::<5, 1>(),
                (_, 4) => self.run::<4, 1>(),
                (_, 3) => self.run::<3, 1>(),
                (_, 2) => self.run::<2, 1>(),
                (_, _) => self.run::<1, 1>(),
            }
        }
    }

    /// Computes M rows and V vectors of columns of C.
    ///
    /// # Safety
    /// Rows i..i + M and columns j..j + n must lie inside C; `b` must point at `depth` rows of V vectors,
    /// `b_step` apart.
    #[inline(always)]
    unsafe fn run<const M: usize, const V: usize>(self) {
        let Tile { job, simd, .. } = self;
        let (a_row, a_step) = (self.a_row, self.a_step);
        let mut acc = [[simd.splat_f32s(0.0); V]; M];
        // One pointer per row: otherwise the compiler adds the stride in each step, and the loop waits for addresses.
        let a: [*const f32; M] =
            std::array::from_fn(|r| std::hint::black_box(self.a.wrapping_add(r * a_row)));
        let c = job.c.at(self.i * job.c_stride + self.j).0;
        (0..M).for_each(|r| prefetch(c.wrapping_add(r * job.c_stride)));
        let (mut at, mut b) = (0, self.b);
        for _ in 0..self.depth {
            // SAFETY: A has rows i..i + M and columns k0..k0 + depth; B is covered by the contract above.
            unsafe {
                let mut bs = [simd.splat_f32s(0.0); V];
                for (v, x) in bs.iter_mut().enumerate() {
                    *x = b.add(v * S::F32_LANES).cast::<S::f32s>().read_unaligned();
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = simd.splat_f32s(*a[r].add(at));
                    for (acc, b) in acc.iter_mut().zip(bs) {
                        *acc = simd.mul_add_e_f32s(x, b, *acc);
                    }
                }
            }
            (at, b) = (at + a_step, b.wrapping_add(self.b_step));
        }
        // The initial value of the first row, and the distance to that of the next row.
        let (base, base_row) = match job.init {
            Init::Zero if self.first => (None, 0),
            Init::Bias(b) if self.first => (Some(b.as_ptr().wrapping_add(self.j)), 0),
            _ => (Some(c.cast_const()), job.c_stride),
        };
        let alpha = simd.splat_f32s(job.alpha);
        // These loops must be short enough to be unrolled; otherwise the sums would go through memory.
        if self.n == V * S::F32_LANES {
            for (r, acc) in acc.into_iter().enumerate() {
                for (v, x) in acc.into_iter().enumerate() {
                    let at = v * S::F32_LANES;
                    // SAFETY: all n columns lie inside C and inside the bias, which is as long as a row of C.
                    unsafe {
                        let x = match base {
                            None => simd.mul_f32s(alpha, x),
                            Some(base) => {
                                let from = base.add(r * base_row + at).cast::<S::f32s>().read_unaligned();
                                simd.mul_add_e_f32s(alpha, x, from)
                            }
                        };
                        c.add(r * job.c_stride + at).cast::<S::f32s>().write_unaligned(x);
                    }
                }
            }
            return;
        }
        let acc = std::hint::black_box(acc);
        for (r, acc) in acc.iter().enumerate() {
            let acc: &[f32] = bytemuck::cast_slice(acc);
            for (l, x) in acc.iter().take(self.n).enumerate() {
                // SAFETY: column j + l lies inside C.
                unsafe {
                    let from = base.map_or(0.0, |base| *base.add(r * base_row + l));
                    *c.add(r * job.c_stride + l) = from + job.alpha * x;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::gemm_serial;
    use super::*;
    use crate::mat::MatRef;

    /// The code paths for processors with narrower vectors than this one's, and for unknown processors.
    #[test]
    fn with_other_vectors_the_same() {
        let values = |len: usize, step: usize| (0..len).map(move |i| (i * step % 31) as f32 / 16.0 - 1.0);
        for (m, k, n) in [(1, 1, 1), (5, 8, 7), (13, 600, 40), (64, 17, 33)] {
            let (x, half): (Vec<f32>, Vec<bf16>) =
                (values(m * k, 7).collect(), values(k * n, 11).map(bf16::from_f32).collect());
            for (a_strides, b_strides) in
                [((k, 1), (n, 1)), ((k, 1), (1, k)), ((1, m), (n, 1)), ((1, m), (1, k))]
            {
                let [mut c, mut want] = [(); 2].map(|()| values(m * n, 5).collect::<Vec<_>>());
                let (a_row, a_col) = a_strides;
                let (row_stride, col_stride) = b_strides;
                let a = MatRef { row_stride: a_row, col_stride: a_col, ..MatRef::f32(&x, m, k) };
                let b = MatRef { row_stride, col_stride, ..MatRef::bf16(&half, k, n) };
                gemm_serial(&mut want, n, Init::Accumulate, 0.5, a, b);
                let (a, b) = (a.typed(&x), b.typed(&half));
                let c_at = Pointer(c.as_mut_ptr());
                let job = Job { c: c_at, c_stride: n, init: Init::Accumulate, alpha: 0.5, m, ks: 0..k, n, a };
                Block { job: &job, b, rows: 0..m, cols: 0..n, scratch: &mut Vec::new() }
                    .with_simd(pulp::Scalar::new());
                // The values have few binary digits, so their sums are exact in any order.
                assert_eq!(c, want, "{m}x{k}x{n} {a_strides:?} {b_strides:?}");
                #[cfg(target_arch = "x86_64")]
                if let Some(avx2) = pulp::x86::V3::try_new() {
                    let mut c: Vec<f32> = values(m * n, 5).collect();
                    let job = Job { c: Pointer(c.as_mut_ptr()), ..job };
                    let scratch = &mut Vec::new();
                    Simd::vectorize(avx2, Block { job: &job, b, rows: 0..m, cols: 0..n, scratch });
                    assert_eq!(c, want, "{m}x{k}x{n} {a_strides:?} {b_strides:?}, AVX2");
                }
            }
        }
    }
}
