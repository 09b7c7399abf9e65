//! GEMM with int8 weights in integer arithmetic. A is quantized to int16 with one scale for each row and
//! block of k, and `C[i, j]` = Σ over blocks of `s_a[i]`·`s_b[j]`·Σ_k `qa[i, k]`·`qb[k, j]`.
//!
//! `vpmaddwd` multiplies sixteen pairs and adds adjacent products, while an FMA handles eight, so the speedup over f32
//! on AVX2 is at most 2. `vpdpwssd` of AVX-512 VNNI handles 32 pairs and also accumulates in the same instruction.
//!
//! The inner sums are exact. Apart from the f32 roundings, the only error is that of quantizing A: |error| ≤
//! |α|·Σ over blocks of max|A[i, block]| / 65534·Σ_k |B[k, j]|. Relative to the maximum, its quantization
//! step is 1/258 of that of int8.
//!
//! The block sizes are named as in BLIS; see the module `gemm`.

use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;

use super::kernel::{CacheLine, Job, MR, SCRATCH};
use super::pack::{prefetch, prefetch_panel, transpose8x8};
use super::{GEMV_ROWS, GEMV_STEPS, Init, task_shape};
use crate::mat::{Scales, Typed};
use crate::par;

/// KC, the steps in a block of k. It keeps the sums in range: 256·32767·128 is half of the range of i32.
const KC: usize = 256;
/// NR, the columns of a micro-tile of C and of a panel of B: two vectors.
const NR_AVX2: usize = 16;
const NR_AVX512: usize = 32;
/// NC, the columns of B that are packed at once, sized for a part of the L2 cache, and MC, the rows of A that stay in
/// the L1 cache while they are multiplied by the packed B.
const NC: usize = 384;
const MC: usize = 4 * MR;
/// With fewer columns than this, quantizing A does not pay off.
const MIN_COLS: usize = 48;
/// A row with a smaller maximum is treated as zero: its scale would be subnormal, and the inverse 32767 / maximum could
/// be infinite.
const MIN_ROW_MAX: f32 = 1e-33;

thread_local! {
    static QUANTIZED: Cell<QuantizedA> = const { Cell::new(QuantizedA { pairs: Vec::new(), scales: Vec::new() }) };
}

/// A quantized to int16: for each block of k and each tile of rows, [pair of steps, row, 2].
#[derive(Default)]
struct QuantizedA {
    pairs: Vec<[i16; 2]>,
    /// The scales, [block of k, row].
    scales: Vec<f32>,
}

/// The destination of tasks that write disjoint tiles of [`QuantizedA`].
struct QuantizedPtr(*mut [i16; 2], *mut f32);
// SAFETY: both are borrowed exclusively while the tasks run, and each task writes its own tiles.
unsafe impl Sync for QuantizedPtr {}

impl Job<'_> {
    /// Whether to compute this GEMM with `b` in integer arithmetic: the rows of A and Bᵀ are contiguous, and there are
    /// enough of them.
    pub(super) fn suits_integers(&self, b: &Typed<'_, i8>) -> bool {
        let along_k = b.row_stride == 1 && self.a.col_stride == 1 && matches!(b.scales, Scales::Cols(_));
        along_k
            && self.m > GEMV_ROWS
            && self.n >= MIN_COLS
            && self.ks.len() >= GEMV_STEPS
            && is_x86_feature_detected!("avx2")
    }

    /// Computes C if [`Job::suits_integers`] holds, on all threads or on the calling one.
    pub(super) fn run_integers(&self, b: Typed<'_, i8>, parallel: bool) {
        let vnni = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
        // SAFETY: `suits_integers` checked for AVX2.
        unsafe {
            match vnni {
                true => self.run_tiles::<NR_AVX512>(b, parallel),
                false => self.run_tiles::<NR_AVX2>(b, parallel),
            }
        }
    }

    /// Computes C in tiles of NR columns.
    ///
    /// # Safety
    /// The processor must have AVX2, and AVX-512 VNNI too when NR is [`NR_AVX512`].
    unsafe fn run_tiles<const NR: usize>(&self, b: Typed<'_, i8>, parallel: bool) {
        let (m, k, n) = (self.m, self.ks.len(), self.n);
        let each = |count: usize, work: usize, task: &(dyn Fn(usize) + Sync)| match parallel {
            true => par::each(count, work, task),
            false => (0..count).for_each(task),
        };
        let k_blocks = k.div_ceil(KC);
        // Taken, not borrowed: while this thread waits for others, rayon may run another GEMM on it.
        let mut a = QUANTIZED.take();
        // Rows of A may alias each other in memory, so even the number of rows is not bounded by the slice.
        let pairs = m.checked_mul(k.div_ceil(2)).expect("memory for A in 16 bits");
        a.pairs.resize(a.pairs.len().max(pairs), [0; 2]);
        a.scales.resize(a.scales.len().max(m * k_blocks), 0.0);
        let to = QuantizedPtr(a.pairs.as_mut_ptr(), a.scales.as_mut_ptr());
        each(m.div_ceil(MR), m * k, &|tile| {
            let to = &to;
            for k_block in 0..k_blocks {
                // SAFETY: the caller guarantees AVX2; each tile of each block of k has its own part of `a`,
                // whose vectors are large enough for all of them.
                unsafe { self.quantize(to, k_block, tile * MR) };
            }
        });
        let (rows, cols) = task_shape(m, k, n);
        let across = n.div_ceil(cols);
        each(m.div_ceil(rows) * across, m * k * n, &|i| {
            let (i, j) = (i / across * rows, i % across * cols);
            // SAFETY: the tasks have disjoint parts of C and `gemm_on` checked all bounds; the caller
            // guarantees the instructions.
            unsafe { self.block_int8::<NR>(&a, b, i..m.min(i + rows), j..n.min(j + cols)) }
        });
        QUANTIZED.set(a);
    }

    /// The range of k of a block; empty beyond the last block.
    fn steps(&self, k_block: usize) -> Range<usize> {
        let start = self.ks.end.min(self.ks.start + k_block * KC);
        start..self.ks.end.min(start + KC)
    }

    /// The index in [`QuantizedA::pairs`] of the tile of rows that starts at row `i`.
    fn tile_at(&self, k_block: usize, i: usize) -> usize {
        k_block * KC / 2 * self.m + i * self.steps(k_block).len().div_ceil(2)
    }

    /// Quantizes the rows of the tile at `i` for one block of k.
    ///
    /// # Safety
    /// `to` must point to a [`QuantizedA`] of this A, nobody else may access this tile, and the processor must
    /// have AVX2.
    #[target_feature(enable = "avx2")]
    unsafe fn quantize(&self, to: &QuantizedPtr, k_block: usize, i: usize) {
        let (ks, m) = (self.steps(k_block), MR.min(self.m - i));
        for r in 0..m {
            let row = &self.a.x[(i + r) * self.a.row_stride..][ks.clone()];
            // Compared as bits, infinities and NaN are the largest values.
            let largest = row.iter().fold(0, |m: u32, x| m.max(x.to_bits() & 0x7fff_ffff));
            let largest = f32::from_bits(largest);
            let (scale, inverse) = match largest {
                x if !x.is_finite() => (f32::NAN, 0.0),
                x if x < MIN_ROW_MAX => (0.0, 0.0),
                x => (x / 32767.0, 32767.0 / x),
            };
            // SAFETY: each block has a scale for each of the m rows of A.
            unsafe { *to.1.add(k_block * self.m + i + r) = scale };
            let at = to.0.wrapping_add(self.tile_at(k_block, i) + r);
            let (sixteens, rest) = row.as_chunks::<16>();
            for (s, x) in sixteens.iter().enumerate() {
                // SAFETY: the chunk has sixteen elements.
                let [low, high] = [0, 8].map(|e| unsafe { _mm256_loadu_ps(x.as_ptr().add(e)) });
                let inverse = _mm256_set1_ps(inverse);
                let low = _mm256_cvtps_epi32(_mm256_mul_ps(low, inverse));
                let high = _mm256_cvtps_epi32(_mm256_mul_ps(high, inverse));
                let sixteen = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
                let pairs: [[i16; 2]; 8] = bytemuck::cast(sixteen);
                for (p, pair) in pairs.into_iter().enumerate() {
                    // SAFETY: the tile has m pairs for every two steps of k.
                    unsafe { *at.add((8 * s + p) * m) = pair };
                }
            }
            for (p, x) in rest.chunks(2).enumerate() {
                let whole = |x: &f32| (x * inverse).round_ties_even() as i16;
                let pair = [whole(&x[0]), x.get(1).map_or(0, whole)];
                // SAFETY: as above; a single remaining step has its own pair.
                unsafe { *at.add((8 * sixteens.len() + p) * m) = pair };
            }
        }
    }

    /// Computes rows `rows`, starting at a multiple of six, and columns `cols` of C, in tiles of NR
    /// columns.
    ///
    /// # Safety
    /// The contract of [`Job::block`], and the processor must have AVX2, and AVX-512 VNNI too when NR is
    /// [`NR_AVX512`].
    #[target_feature(enable = "avx2")]
    unsafe fn block_int8<const NR: usize>(
        &self,
        a: &QuantizedA,
        b: Typed<'_, i8>,
        rows: Range<usize>,
        cols: Range<usize>,
    ) {
        let Scales::Cols(b_scales) = b.scales else {
            unreachable!("`suits_integers` asks for one scale per column")
        };
        SCRATCH.with_borrow_mut(|scratch| {
            let len = NC.min(cols.len().next_multiple_of(NR)) * KC / 2;
            if scratch.len() * CacheLine::LEN < len {
                scratch.resize_with(len.div_ceil(CacheLine::LEN), bytemuck::Zeroable::zeroed);
            }
            let packed: &mut [[i16; 2]] = bytemuck::cast_slice_mut(scratch);
            for k_block in 0..self.ks.len().div_ceil(KC) {
                let ks = self.steps(k_block);
                let pairs = ks.len().div_ceil(2);
                for j0 in cols.clone().step_by(NC) {
                    let js = j0..cols.end.min(j0 + NC);
                    for j in js.clone().step_by(NR) {
                        let panel = &mut packed[(j - j0) * pairs..][..NR * pairs];
                        pack_panel::<NR>(panel, b, ks.clone(), j..js.end.min(j + NR));
                    }
                    for i0 in rows.clone().step_by(MC) {
                        for j in js.clone().step_by(NR) {
                            let n = NR.min(js.end - j);
                            if i0 == rows.start {
                                // Prefetches the panel at the same position of the next chunk or, for the
                                // last chunk, of the next block of k.
                                let (ks, j) = match j + NC < cols.end {
                                    true => (ks.clone(), j + NC),
                                    false => (self.steps(k_block + 1), cols.start + (j - cols.start) % NC),
                                };
                                prefetch_panel(b, ks, j..cols.end.min(j + n));
                            }
                            let mut scales = [0.0; NR];
                            scales[..n].copy_from_slice(&b_scales[j..j + n]);
                            for i in (i0..rows.end.min(i0 + MC)).step_by(MR) {
                                let m = MR.min(rows.end - i);
                                let tile = Tile::<NR> {
                                    job: self,
                                    i,
                                    j,
                                    n,
                                    first: k_block == 0,
                                    a: &a.pairs[self.tile_at(k_block, i)..][..m * pairs],
                                    a_scales: &a.scales[k_block * self.m + i..][..m],
                                    b: &packed[(j - j0) * pairs..][..NR * pairs],
                                    b_scales: &scales,
                                };
                                // SAFETY: rows i..i + m and columns j..j + n lie inside C; the slices have m
                                // rows and NR columns.
                                unsafe {
                                    match m {
                                        6 => tile.run::<6>(),
                                        5 => tile.run::<5>(),
                                        4 => tile.run::<4>(),
                                        3 => tile.run::<3>(),
                                        2 => tile.run::<2>(),
                                        _ => tile.run::<1>(),
                                    }
                                }
                            }
                        }
                    }
                }
            }
        });
    }
}

/// Packs panel[pair of steps, 0..NR, 2] = B[ks, js], padded with zeros beyond both ranges.
#[target_feature(enable = "avx2")]
fn pack_panel<const NR: usize>(panel: &mut [[i16; 2]], b: Typed<'_, i8>, ks: Range<usize>, js: Range<usize>) {
    let row = |l: usize| &b.x[(js.start + l) * b.col_stride..][ks.clone()];
    let mut done = 0;
    while done + 8 <= js.len() {
        let from: [&[i8]; 8] = std::array::from_fn(|r| row(done + r));
        for (s, panel) in panel.chunks_exact_mut(8 * NR).take(ks.len() / 16).enumerate() {
            // Loops, not closures: a closure that is not inlined is compiled without the wide instructions.
            let mut x = [_mm256_setzero_ps(); 8];
            for (x, from) in x.iter_mut().zip(&from) {
                let sixteen: &[i8; 16] = from[16 * s..].first_chunk().expect("sixteen steps");
                *x = _mm256_castsi256_ps(_mm256_cvtepi8_epi16(bytemuck::cast(*sixteen)));
            }
            // SAFETY: this function is compiled for AVX2.
            let columns = unsafe { transpose8x8(x) };
            for (x, to) in columns.into_iter().zip(panel.chunks_exact_mut(NR)) {
                to[done..done + 8].copy_from_slice(&bytemuck::cast::<_, [[i16; 2]; 8]>(x));
            }
        }
        for (r, from) in from.iter().enumerate() {
            pack_column::<NR>(panel, from, ks.len() / 16 * 16, done + r);
        }
        done += 8;
    }
    (done..js.len()).for_each(|l| pack_column::<NR>(panel, row(l), 0, l));
    if js.len() < NR {
        panel.chunks_exact_mut(NR).for_each(|to| to[js.len()..].fill([0; 2]));
    }
}

/// Packs column `l` of a panel from the even step `first` on.
fn pack_column<const NR: usize>(panel: &mut [[i16; 2]], from: &[i8], first: usize, l: usize) {
    for (to, x) in panel.chunks_exact_mut(NR).skip(first / 2).zip(from[first..].chunks(2)) {
        to[l] = [x[0].into(), x.get(1).map_or(0, |&x| x.into())];
    }
}

/// A micro-tile of C for one block of k.
struct Tile<'a, 'b, const NR: usize> {
    job: &'a Job<'b>,
    i: usize,
    j: usize,
    n: usize,
    first: bool,
    a: &'a [[i16; 2]],
    a_scales: &'a [f32],
    b: &'a [[i16; 2]],
    b_scales: &'a [f32; NR],
}

impl<const NR: usize> Tile<'_, '_, NR> {
    /// Computes M rows and NR columns, of which n belong to C.
    ///
    /// # Safety
    /// Rows i..i + M and columns j..j + n must lie inside C, nobody else may access them, and the part of A
    /// must have M rows. The processor must have AVX2, and AVX-512 VNNI too when NR is [`NR_AVX512`].
    #[inline(always)]
    unsafe fn run<const M: usize>(self) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match NR {
                NR_AVX512 => self.avx512::<M>(),
                _ => self.avx2::<M>(),
            }
        }
    }

    /// # Safety
    /// The contract of [`Tile::run`].
    #[target_feature(enable = "avx2")]
    unsafe fn avx2<const M: usize>(self) {
        self.prefetch(M);
        let mut acc = [[_mm256_setzero_si256(); 2]; M];
        for (a, b) in self.a.as_chunks::<M>().0.iter().zip(self.b.as_chunks::<NR_AVX2>().0) {
            let b: [__m256i; 2] = bytemuck::cast(*b);
            for r in 0..M {
                let x = _mm256_set1_epi32(bytemuck::cast(a[r]));
                for v in 0..2 {
                    acc[r][v] = _mm256_add_epi32(acc[r][v], _mm256_madd_epi16(x, b[v]));
                }
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            // SAFETY: guaranteed by the caller.
            unsafe { self.add::<NR_AVX2>(r, bytemuck::cast(acc)) };
        }
    }

    /// # Safety
    /// The contract of [`Tile::run`].
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn avx512<const M: usize>(self) {
        self.prefetch(M);
        let mut acc = [[_mm512_setzero_si512(); 2]; M];
        for (a, b) in self.a.as_chunks::<M>().0.iter().zip(self.b.as_chunks::<NR_AVX512>().0) {
            let b: [__m512i; 2] = bytemuck::cast(*b);
            for r in 0..M {
                let x = _mm512_set1_epi32(bytemuck::cast(a[r]));
                for v in 0..2 {
                    acc[r][v] = _mm512_dpwssd_epi32(acc[r][v], x, b[v]);
                }
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            // SAFETY: guaranteed by the caller.
            unsafe { self.add::<NR_AVX512>(r, bytemuck::cast(acc)) };
        }
    }

    /// Pointer to row `r` of the tile in C.
    #[inline(always)]
    fn c(&self, r: usize) -> *mut f32 {
        self.job.c.at((self.i + r) * self.job.c_stride + self.j).0
    }

    #[inline(always)]
    fn prefetch(&self, rows: usize) {
        (0..rows).for_each(|r| prefetch(self.c(r)));
    }

    /// Adds row `r`'s sums to C, or to the initial value of C. `W` is NR.
    ///
    /// # Safety
    /// Columns j..j + n of the row must lie inside C, and nobody else may access them.
    #[inline(always)]
    unsafe fn add<const W: usize>(&self, r: usize, sums: [i32; W]) {
        let Tile { job, n, .. } = *self;
        let c = self.c(r);
        let base = match job.init {
            Init::Zero if self.first => None,
            Init::Bias(b) if self.first => Some(b.as_ptr().wrapping_add(self.j)),
            _ => Some(c.cast_const()),
        };
        let scale = job.alpha * self.a_scales[r];
        let term = |l: usize| scale * (self.b_scales[l] * sums[l] as f32);
        // SAFETY: all n columns lie inside C and inside the bias, which is as long as a row of C.
        unsafe {
            if n == W {
                let mut row = [0.0; W];
                if let Some(base) = base {
                    row = base.cast::<[f32; W]>().read_unaligned();
                }
                for (l, c) in row.iter_mut().enumerate() {
                    *c += term(l);
                }
                c.cast::<[f32; W]>().write_unaligned(row);
            } else {
                for l in 0..n {
                    *c.add(l) = base.map_or(0.0, |b| *b.add(l)) + term(l);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Init, gemm};
    use super::*;
    use crate::mat::MatRef;
    use crate::par::Pointer;

    /// C = A·Bᵀ for A [m, k] given by `a` and B [48, k] filled with `b`, with scales of 1.
    fn product(a: &[f32], m: usize, b: i8) -> Vec<f32> {
        let (k, n) = (a.len() / m, super::MIN_COLS);
        let (b, scales) = (vec![b; n * k], vec![1.0; n]);
        let mut c = vec![f32::NAN; m * n];
        gemm(&mut c, n, Init::Zero, 1.0, MatRef::f32(a, m, k), MatRef::int8(&b, &scales, n, k).t());
        c
    }

    #[test]
    fn the_largest_sums_fit() {
        for b in [-128, 127] {
            for sign in [-1.0, 1.0] {
                // If all elements are equal, quantization is exact.
                let c = product(&[sign; 7 * 1000], 7, b);
                assert!(c.iter().all(|&c| (c / (1000.0 * sign * b as f32) - 1.0).abs() < 1e-6), "{c:?}");
            }
        }
    }

    #[test]
    fn rows_without_a_factor() {
        let mut a = vec![1.0; 13 * 300];
        for (row, x) in [(0, f32::NAN), (2, f32::INFINITY), (7, f32::NEG_INFINITY)] {
            a[row * 300 + 299] = x;
        }
        a[4 * 300..5 * 300].fill(0.0);
        a[9 * 300..10 * 300].fill(f32::MIN_POSITIVE);
        for (row, c) in product(&a, 13, 3).chunks(super::MIN_COLS).enumerate() {
            match row {
                0 | 2 | 7 => assert!(c.iter().all(|c| !c.is_finite()), "{row}"),
                4 | 9 => assert!(c.iter().all(|&c| c == 0.0), "{row}"),
                _ => assert!(c.iter().all(|&c| (c - 900.0).abs() < 1e-3), "{row}: {c:?}"),
            }
        }
    }

    /// The AVX2 tiles on a processor with wider vectors: the same integer sums, then the same operations.
    #[test]
    fn narrower_tiles_give_the_same() {
        for (m, k, n) in [(7, 33, 48), (13, 300, 65), (6, 512, 100), (65, 257, 33)] {
            let values = |len: usize, step: usize| (0..len).map(move |i| (i * step % 127) as i8 - 63);
            let a: Vec<f32> = values(m * k, 7).map(|x| x as f32 / 63.0).collect();
            let (w, scales): (Vec<i8>, Vec<f32>) =
                (values(k * n, 11).collect(), (0..n).map(|j| 1.0 + j as f32).collect());
            let a = Typed { x: &a[..], row_stride: k, col_stride: 1, scales: Scales::None };
            let b = Typed { x: &w[..], row_stride: 1, col_stride: k, scales: Scales::Cols(&scales) };
            let [mut narrow, mut widest] = [(); 2].map(|()| vec![f32::NAN; m * n]);
            let job = |c: &mut [f32]| Job {
                c: Pointer(c.as_mut_ptr()),
                c_stride: n,
                init: Init::Bias(&scales),
                alpha: 0.5,
                m,
                ks: 0..k,
                n,
                a,
            };
            if is_x86_feature_detected!("avx2") {
                // SAFETY: there is AVX2; C, A and B have the shapes of the job.
                unsafe { job(&mut narrow).run_tiles::<NR_AVX2>(b, false) };
                job(&mut widest).run_integers(b, false);
                assert_eq!(narrow, widest, "{m}x{k}x{n}");
            }
        }
    }
}
