//! Packing: copies operands into the order in which the microkernel reads them.

use std::ops::Range;

use pulp::Simd;

use super::kernel::MR;
use crate::element::{Element, LANES8, load8_f32};
use crate::mat::{Scales, Typed};

/// panel[k, 0..nr] = B[ks.start + k, js], padded with zeros beyond js. `nr` is a multiple of the vector length.
#[inline(always)]
pub(super) fn pack_panel<S: Simd, E: Element>(
    panel: &mut [f32],
    nr: usize,
    b: Typed<'_, E>,
    ks: Range<usize>,
    js: Range<usize>,
) {
    let panel = &mut panel[..ks.len() * nr];
    if js.len() < nr {
        panel.fill(0.0);
    }
    if b.col_stride == 1 {
        for (k, row) in ks.clone().zip(panel.chunks_exact_mut(nr)) {
            // Eight at a time: a copy of variable length would be a function call for each row.
            let (from, rest) = b.x[k * b.row_stride..][js.clone()].as_chunks::<LANES8>();
            let (to, to_rest) = row.split_at_mut(LANES8 * from.len());
            for (to, from) in to.as_chunks_mut::<LANES8>().0.iter_mut().zip(from) {
                *to = load8_f32::<S, E>(from);
            }
            to_rest.iter_mut().zip(rest).for_each(|(p, x)| *p = x.widen());
        }
    } else {
        let mut done = 0;
        let row = |l: usize| &b.x[(js.start + l) * b.col_stride..][ks.clone()];
        #[cfg(target_arch = "x86_64")]
        while S::F32_LANES >= 8 && b.row_stride == 1 && done + 8 <= js.len() {
            let from = std::array::from_fn(|r| row(done + r));
            // SAFETY: vectors of eight or more lanes are selected only where there is AVX2.
            unsafe { pack8(&mut panel[done..], nr, from) };
            done += 8;
        }
        while b.row_stride == 1 && done + 4 <= js.len() {
            pack4(&mut panel[done..], nr, std::array::from_fn(|r| row(done + r)));
            done += 4;
        }
        for (l, j) in js.clone().enumerate().skip(done) {
            for (k, row) in ks.clone().zip(panel.chunks_exact_mut(nr)) {
                row[l] = b.x[k * b.row_stride + j * b.col_stride].widen();
            }
        }
    }
    match b.scales {
        Scales::None => (),
        Scales::Cols(s) => panel.chunks_exact_mut(nr).for_each(|row| {
            row.iter_mut().zip(&s[js.clone()]).for_each(|(p, s)| *p *= s);
        }),
        Scales::Rows(s) => {
            let rows = panel.chunks_exact_mut(nr).zip(&s[ks]);
            rows.for_each(|(row, s)| row.iter_mut().for_each(|p| *p *= s));
        }
    }
}

/// Packs the panels of columns `js`, row by row of B, if the columns are contiguous and without scales and `js` is a
/// multiple of a panel. The part of a row that belongs to one panel is too short for the hardware prefetcher.
#[inline(always)]
pub(super) fn pack_whole_panels<S: Simd, E: Element>(
    packed: &mut [f32],
    nr: usize,
    b: Typed<'_, E>,
    ks: Range<usize>,
    js: Range<usize>,
) {
    let depth = ks.len();
    for (step, k) in ks.enumerate() {
        let row = &b.x[k * b.row_stride..][js.clone()];
        for (panel, from) in row.chunks_exact(nr).enumerate() {
            let to = &mut packed[(panel * depth + step) * nr..][..nr];
            let (to, to_rest) = to.as_chunks_mut::<LANES8>();
            let (from, rest) = from.as_chunks::<LANES8>();
            for (to, from) in to.iter_mut().zip(from) {
                *to = load8_f32::<S, E>(from);
            }
            to_rest.iter_mut().zip(rest).for_each(|(to, from)| *to = from.widen());
        }
    }
}

/// Prefetches into the L2 cache the part of B that [`pack_panel`] will read. The ranges that it reads of the rows of Bᵀ
/// are too short for the hardware prefetcher.
#[inline(always)]
pub(super) fn prefetch_panel<E: Element>(b: Typed<'_, E>, ks: Range<usize>, js: Range<usize>) {
    if b.row_stride != 1 {
        return;
    }
    for j in js {
        let row = &b.x[j * b.col_stride..][ks.clone()];
        row.chunks(64 / size_of::<E>()).for_each(|line| prefetch(line.as_ptr()));
    }
}

/// Prefetches the cache line of `at` into the L2 cache.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    // SAFETY: a prefetch neither reads nor faults; SSE is part of every x86-64 processor.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The steps along k that [`pack_a`] copies at once.
const PACK_STEPS: usize = 4;

/// Packs rows `rows` of A tile by tile, each as [k, rows of the tile].
#[inline(always)]
pub(super) fn pack_a(packed: &mut [f32], a: Typed<'_, f32>, rows: Range<usize>, ks: Range<usize>) {
    let depth = ks.len();
    if a.row_stride != 1 {
        for i in rows.clone().step_by(MR) {
            let m = MR.min(rows.end - i);
            let to = packed[(i - rows.start) * depth..][..m * depth].chunks_exact_mut(m);
            for (k, to) in ks.clone().zip(to) {
                for (r, to) in to.iter_mut().enumerate() {
                    *to = a.x[(i + r) * a.row_stride + k * a.col_stride];
                }
            }
        }
        return;
    }
    let whole = rows.start + rows.len() / MR * MR;
    let of = |k: usize, rows: Range<usize>| &a.x[k * a.col_stride..][rows];
    // A few steps at a time: that many cache lines are read in parallel, and the cache lines of a tile are written
    // completely.
    for k0 in ks.clone().step_by(PACK_STEPS) {
        let steps = PACK_STEPS.min(ks.end - k0);
        for i in (rows.start..whole).step_by(MR) {
            let to = &mut packed[(i - rows.start) * depth + (k0 - ks.start) * MR..][..steps * MR];
            for (step, to) in to.as_chunks_mut::<MR>().0.iter_mut().enumerate() {
                *to = *of(k0 + step, i..i + MR).first_chunk().expect("a tile of rows");
            }
        }
    }
    let m = rows.end - whole;
    if m > 0 {
        let to = packed[(whole - rows.start) * depth..][..m * depth].chunks_exact_mut(m);
        ks.zip(to).for_each(|(k, to)| to.copy_from_slice(of(k, whole..rows.end)));
    }
}

/// `panel[k, 0..8] = from[..][k]`.
///
/// # Safety
/// The processor must have AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn pack8<E: Element>(panel: &mut [f32], nr: usize, from: [&[E]; 8]) {
    use std::arch::x86_64::*;
    let depth = from[0].len();
    assert!(from.iter().all(|f| f.len() == depth) && panel.len() + nr >= depth * nr + 8);
    let mut k = 0;
    while k + 8 <= depth {
        // SAFETY: each row has eight elements from k on, and the panel has eight floats in each of rows k..k
        // + 8.
        unsafe {
            // Loops, not closures: a closure that is not inlined is compiled without the wide instructions.
            let mut x = [_mm256_setzero_ps(); 8];
            for (x, from) in x.iter_mut().zip(&from) {
                *x = E::load8(from.as_ptr().add(k));
            }
            for (c, x) in transpose8x8(x).into_iter().enumerate() {
                _mm256_storeu_ps(panel.as_mut_ptr().add((k + c) * nr), x);
            }
        }
        k += 8;
    }
    for k in k..depth {
        for (r, from) in from.iter().enumerate() {
            panel[k * nr + r] = from[k].widen();
        }
    }
}

/// Transposes an 8×8 matrix.
///
/// # Safety
/// The processor must have AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn transpose8x8(x: [std::arch::x86_64::__m256; 8]) -> [std::arch::x86_64::__m256; 8] {
    use std::arch::x86_64::*;
    // SAFETY: guaranteed by the caller.
    unsafe {
        // quads[h][c]: columns c and c + 4 of rows 4h..4h + 4.
        let mut quads = [[_mm256_setzero_ps(); 4]; 2];
        for (quads, x) in quads.iter_mut().zip(x.chunks_exact(4)) {
            let (l0, h0) = (_mm256_unpacklo_ps(x[0], x[1]), _mm256_unpackhi_ps(x[0], x[1]));
            let (l1, h1) = (_mm256_unpacklo_ps(x[2], x[3]), _mm256_unpackhi_ps(x[2], x[3]));
            *quads = [
                _mm256_shuffle_ps::<0x44>(l0, l1),
                _mm256_shuffle_ps::<0xee>(l0, l1),
                _mm256_shuffle_ps::<0x44>(h0, h1),
                _mm256_shuffle_ps::<0xee>(h0, h1),
            ];
        }
        let mut out = [_mm256_setzero_ps(); 8];
        for c in 0..4 {
            out[c] = _mm256_permute2f128_ps::<0x20>(quads[0][c], quads[1][c]);
            out[c + 4] = _mm256_permute2f128_ps::<0x31>(quads[0][c], quads[1][c]);
        }
        out
    }
}

/// `panel[k, 0..4] = from[..][k]`.
#[inline(always)]
fn pack4<E: Element>(panel: &mut [f32], nr: usize, from: [&[E]; 4]) {
    let depth = from[0].len();
    let blocks = from.map(|x| x.as_chunks::<4>().0);
    for (i, panel) in panel.chunks_mut(4 * nr).enumerate().take(depth / 4) {
        let block = transpose4(std::array::from_fn(|r| blocks[r][i].map(E::widen)));
        for (k, row) in block.iter().enumerate() {
            panel[k * nr..][..4].copy_from_slice(row);
        }
    }
    for k in depth / 4 * 4..depth {
        for (r, from) in from.iter().enumerate() {
            panel[k * nr + r] = from[k].widen();
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn transpose4(x: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    use std::arch::x86_64::*;
    let [a, b, c, d]: [__m128; 4] = bytemuck::cast(x);
    // SAFETY: SSE is part of every x86-64 processor.
    let t = unsafe {
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (ab_hi, cd_hi) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        [
            _mm_movelh_ps(ab, cd),
            _mm_movehl_ps(cd, ab),
            _mm_movelh_ps(ab_hi, cd_hi),
            _mm_movehl_ps(cd_hi, ab_hi),
        ]
    };
    bytemuck::cast(t)
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn transpose4(x: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    std::array::from_fn(|k| std::array::from_fn(|r| x[r][k]))
}
