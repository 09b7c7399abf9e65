//! Operands copied into the order in which the kernel reads them.

use std::ops::Range;

use super::kernel::{Element, Mat, TILE};

/// panel[k, 0..wide] = B[ks.start + k, js], zeros beyond js.
#[inline(always)]
pub(super) fn pack<E: Element>(
    panel: &mut [f32],
    wide: usize,
    b: Mat<'_, E>,
    ks: Range<usize>,
    js: Range<usize>,
) {
    let panel = &mut panel[..ks.len() * wide];
    if js.len() < wide {
        panel.fill(0.0);
    }
    if b.col_stride == 1 {
        for (k, row) in ks.zip(panel.chunks_exact_mut(wide)) {
            let from = &b.x[k * b.row_stride..][js.clone()];
            row.iter_mut().zip(from).for_each(|(p, x)| *p = x.wide());
        }
    } else {
        let mut fast = 0;
        while b.row_stride == 1 && fast + 4 <= js.len() {
            let from: [&[E]; 4] =
                std::array::from_fn(|r| &b.x[(js.start + fast + r) * b.col_stride..][ks.clone()]);
            transpose(&mut panel[fast..], wide, from);
            fast += 4;
        }
        for (l, j) in js.enumerate().skip(fast) {
            for (k, row) in ks.clone().zip(panel.chunks_exact_mut(wide)) {
                row[l] = b.x[k * b.row_stride + j * b.col_stride].wide();
            }
        }
    }
}

/// Rows `rows` of A, whose rows are not contiguous, a tile after the other, each as [k, rows of the tile].
#[inline(always)]
pub(super) fn pack_tiles(packed: &mut [f32], a: Mat<'_, f32>, rows: Range<usize>, ks: Range<usize>) {
    let depth = ks.len();
    if a.row_stride != 1 {
        for i in rows.clone().step_by(TILE) {
            let m = TILE.min(rows.end - i);
            let to = packed[(i - rows.start) * depth..][..m * depth].chunks_exact_mut(m);
            for (k, to) in ks.clone().zip(to) {
                for (r, to) in to.iter_mut().enumerate() {
                    *to = a.x[(i + r) * a.row_stride + k * a.col_stride];
                }
            }
        }
        return;
    }
    for (step, k) in ks.enumerate() {
        let (tiles, rest) = a.x[k * a.col_stride..][rows.clone()].as_chunks::<TILE>();
        for (t, tile) in tiles.iter().enumerate() {
            packed[(t * depth + step) * TILE..][..TILE].copy_from_slice(tile);
        }
        let at = tiles.len() * TILE * depth + step * rest.len();
        packed[at..at + rest.len()].copy_from_slice(rest);
    }
}

/// panel[k, 0..4] = from[..][k].
#[inline(always)]
fn transpose<E: Element>(panel: &mut [f32], wide: usize, from: [&[E]; 4]) {
    let depth = from[0].len();
    let blocks = from.map(|x| x.as_chunks::<4>().0);
    for (i, panel) in panel.chunks_mut(4 * wide).enumerate().take(depth / 4) {
        let block = transpose4(std::array::from_fn(|r| blocks[r][i].map(E::wide)));
        for (k, row) in block.iter().enumerate() {
            panel[k * wide..][..4].copy_from_slice(row);
        }
    }
    for k in depth / 4 * 4..depth {
        for (r, from) in from.iter().enumerate() {
            panel[k * wide + r] = from[k].wide();
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
