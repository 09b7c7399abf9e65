//! The GEMM of one piece of C: packs panels of B for the L1 cache, and runs the microkernel, a loop over k
//! that holds a tile of C in registers. The constants are those of BLIS: `TILE` is MR, two vectors are NR,
//! `DEPTH` is KC, `SLICE` elements of A are MC·KC, and `PACKED` elements of B are KC·NC.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use half::bf16;
use pulp::{Arch, Simd, WithSimd};

use super::Start;
use super::pack::{fetch, pack, pack_rows, pack_tiles, prefetch};

/// MR, the rows of a micro-tile: with two vectors of columns, 12 of 16 registers are accumulators.
pub(super) const TILE: usize = 6;
/// KC, the steps along k after which C is written. A panel of B (16 columns on AVX2) then streams from the L2
/// cache past the few rows of A that stay in the L1 cache. That moves less data than C would with half as
/// many steps, which write C twice as often.
const DEPTH: usize = 512;
/// KC·NC, the elements of B packed at once, for a part of the L2 cache, and MC·KC, the elements of A that
/// stay in the L1 cache while they are multiplied with the packed B.
const PACKED: usize = 48 << 10;
const SLICE: usize = 3 << 10;
/// Up to this many steps of k, writing C dominates the memory traffic, so its rows are written from end to
/// end.
const SHALLOW: usize = 32;

/// An element type of B.
pub(crate) trait Element: Copy + Sync + 'static {
    fn wide(self) -> f32;
    /// Loads eight elements from `x` on, converted to f32.
    ///
    /// # Safety
    /// The elements must exist, and the processor must have AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load8(x: *const Self) -> __m256;
    /// Loads sixteen elements from `x` on, converted to f32.
    ///
    /// # Safety
    /// The elements must exist, and the processor must have AVX-512F.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load16(x: *const Self) -> __m512;
    /// The slice itself when it is f32 and needs no conversion.
    fn plain(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl Element for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load8(x: *const f32) -> __m256 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_loadu_ps(x) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load16(x: *const f32) -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_loadu_ps(x) }
    }
    fn plain(x: &[f32]) -> Option<&[f32]> {
        Some(x)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load8(x: *const bf16) -> __m256 {
        // SAFETY: guaranteed by the caller. A bf16 is the upper half of an f32.
        unsafe {
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(x.cast()))))
        }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load16(x: *const bf16) -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(x.cast()))))
        }
    }
}

impl Element for i8 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self as f32
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load8(x: *const i8) -> __m256 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.cast()))) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load16(x: *const i8) -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.cast()))) }
    }
}

/// The number of elements that are converted at once.
pub(crate) const LANES8: usize = 8;

/// Converts eight elements to f32.
#[inline(always)]
pub(crate) fn widen8<S: Simd, E: Element>(x: &[E; LANES8]) -> [f32; LANES8] {
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES >= 8 {
        // SAFETY: there are eight elements, and vectors of eight lanes are selected only where there is AVX2.
        return bytemuck::cast(unsafe { E::load8(x.as_ptr()) });
    }
    x.map(E::wide)
}

/// Loads a vector of elements from `x` on, converted to f32.
///
/// # Safety
/// The elements must exist.
#[inline(always)]
pub(super) unsafe fn widen<S: Simd, E: Element>(simd: S, x: *const E) -> S::f32s {
    let mut wide = simd.splat_f32s(0.0);
    let lanes: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut wide));
    // SAFETY: the elements exist, and vectors of eight and sixteen lanes are selected only where there is
    // AVX2 and AVX-512.
    unsafe {
        match lanes.len() {
            #[cfg(target_arch = "x86_64")]
            16 => lanes.copy_from_slice(bytemuck::cast_ref::<_, [f32; 16]>(&E::load16(x))),
            #[cfg(target_arch = "x86_64")]
            8 => lanes.copy_from_slice(bytemuck::cast_ref::<_, [f32; 8]>(&E::load8(x))),
            _ => lanes.iter_mut().enumerate().for_each(|(l, lane)| *lane = (*x.add(l)).wide()),
        }
    }
    wide
}

/// The scales of the elements of a matrix.
#[derive(Debug, Clone, Copy)]
pub enum Scales<'a> {
    /// No scales.
    None,
    /// One scale per row.
    Rows(&'a [f32]),
    /// One scale per column.
    Cols(&'a [f32]),
}

#[derive(Clone, Copy)]
pub(super) struct Mat<'a, E> {
    pub x: &'a [E],
    pub row_stride: usize,
    pub col_stride: usize,
    pub scales: Scales<'a>,
}

/// A pointer for tasks that write disjoint parts of one slice.
#[derive(Clone, Copy)]
pub(crate) struct Pointer(pub *mut f32);

// SAFETY: the slice is borrowed exclusively for as long as the tasks run, and each task writes its own part.
unsafe impl Send for Pointer {}
// SAFETY: as above.
unsafe impl Sync for Pointer {}

impl Pointer {
    pub(crate) fn at(self, i: usize) -> Pointer {
        Pointer(self.0.wrapping_add(i))
    }
}

/// A GEMM without its B operand. Strides and lengths have been checked.
pub(super) struct Job<'a> {
    pub c: Pointer,
    pub c_stride: usize,
    pub start: Start<'a>,
    pub alpha: f32,
    pub m: usize,
    pub ks: Range<usize>,
    pub n: usize,
    pub a: Mat<'a, f32>,
}

/// Panels start on a cache line, so that no vector load crosses one.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([f32; 16]);

impl Line {
    pub(super) const LEN: usize = 16;
}

thread_local! {
    pub(super) static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

impl Job<'_> {
    /// Computes rows `rows` and columns `cols` of C.
    ///
    /// # Safety
    /// The ranges must lie inside C and the matrices inside their slices, and nobody else may access this
    /// part of C.
    pub(super) unsafe fn block<E: Element>(&self, b: Mat<'_, E>, rows: Range<usize>, cols: Range<usize>) {
        SCRATCH.with_borrow_mut(|scratch| Arch::new().dispatch(Block { job: self, b, rows, cols, scratch }));
    }
}

struct Block<'a, 'b, E> {
    job: &'a Job<'b>,
    b: Mat<'a, E>,
    rows: Range<usize>,
    cols: Range<usize>,
    scratch: &'a mut Vec<Line>,
}

impl<E: Element> WithSimd for Block<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Block { job, b, rows, cols, scratch } = self;
        let (wide, ks) = (2 * S::F32_LANES, job.ks.clone());
        let deepest = DEPTH.min(ks.len());
        let chunk = (PACKED / deepest / wide).max(1) * wide;
        let pack_a = job.a.col_stride != 1;
        let of_b = chunk.min(cols.len().next_multiple_of(wide)) * deepest;
        let len = of_b + if pack_a { rows.len() * deepest } else { 0 };
        if scratch.len() * Line::LEN < len {
            scratch.resize(len.div_ceil(Line::LEN), Line::zeroed());
        }
        let (packed_b, packed_a) = bytemuck::cast_slice_mut(scratch).split_at_mut(of_b);
        // Rows of B that are used only once or twice are not worth packing.
        let plain = if b.col_stride == 1 && rows.len() <= 2 * TILE { E::plain(b.x) } else { None };
        for k0 in ks.clone().step_by(DEPTH) {
            let depth = DEPTH.min(ks.end - k0);
            if pack_a {
                pack_tiles(packed_a, job.a, rows.clone(), k0..k0 + depth);
            }
            let slice = if depth <= SHALLOW { TILE } else { (SLICE / depth / TILE).max(1) * TILE };
            // The panel that is packed one chunk after the panel at j.
            let following = |k0: usize, j: usize| match j + chunk < cols.end {
                true => (k0..k0 + depth, j + chunk),
                false => {
                    let next = ks.end.min(k0 + depth);
                    (next..ks.end.min(next + DEPTH), cols.start + (j - cols.start) % chunk)
                }
            };
            for j0 in cols.clone().step_by(chunk) {
                let js = j0..cols.end.min(j0 + chunk);
                let rest = match plain.is_none() && b.col_stride == 1 && matches!(b.scales, Scales::None) {
                    true => js.end - js.len() % wide,
                    false => j0,
                };
                pack_rows::<S, E>(packed_b, wide, b, k0..k0 + depth, j0..rest);
                for j in (rest..js.end).step_by(wide) {
                    let (n, vectors) = extent::<S>(j, &js);
                    if plain.is_none() || n < vectors * S::F32_LANES {
                        let panel = &mut packed_b[(j - j0) * depth..];
                        pack::<S, E>(panel, vectors * S::F32_LANES, b, k0..k0 + depth, j..j + n);
                    }
                }
                for i0 in rows.clone().step_by(slice) {
                    for j in js.clone().step_by(wide) {
                        let (n, vectors) = extent::<S>(j, &js);
                        let from = b;
                        let (b, b_step) = match plain.filter(|_| n == vectors * S::F32_LANES) {
                            Some(x) => (x[k0 * b.row_stride + j..].as_ptr(), b.row_stride),
                            None => (packed_b[(j - j0) * depth..].as_ptr(), vectors * S::F32_LANES),
                        };
                        if i0 == rows.start && plain.is_none() {
                            let (ks, j) = following(k0, j);
                            fetch(from, ks, j..cols.end.min(j + n));
                        }
                        for i in (i0..rows.end.min(i0 + slice)).step_by(TILE) {
                            let m = TILE.min(rows.end - i);
                            let (a, a_row, a_step) = if pack_a {
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
                            // A call, so that tiles are compiled once for all element types of B.
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
pub(super) fn extent<S: Simd>(j: usize, js: &Range<usize>) -> (usize, usize) {
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
        unsafe { self.tile.run_of(self.m, self.vectors) }
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
    unsafe fn run_of(self, m: usize, vectors: usize) {
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
        // One pointer per row: the compiler would rather add the stride each time, and the loop would wait
        // for addresses.
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
        // What the first row is added to, and the distance to that of the next row.
        let (base, base_row) = match job.start {
            Start::Zero if self.first => (None, 0),
            Start::Bias(b) if self.first => (Some(b.as_ptr().wrapping_add(self.j)), 0),
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
    use super::super::{MatRef, gemm_here};
    use super::*;

    /// The paths of processors with narrower vectors than this one's, and of those whose vectors are not known.
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
                gemm_here(&mut want, n, Start::Keep, 0.5, a, b);
                let a = Mat { x: &x[..], row_stride: a_row, col_stride: a_col, scales: Scales::None };
                let c_at = Pointer(c.as_mut_ptr());
                let job = Job { c: c_at, c_stride: n, start: Start::Keep, alpha: 0.5, m, ks: 0..k, n, a };
                let b = Mat { x: &half[..], row_stride, col_stride, scales: Scales::None };
                Block { job: &job, b, rows: 0..m, cols: 0..n, scratch: &mut Vec::new() }
                    .with_simd(pulp::Scalar::new());
                // Sums of few binary digits: exact in any order.
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
