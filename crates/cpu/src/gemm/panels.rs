//! A small B that is packed once for many GEMMs, such as keys and values in attention.

use bytemuck::Zeroable;
use pulp::{Arch, Simd, WithSimd};

use super::Init;
use super::kernel::{CacheLine, Job, MR, Run, Tile, panel_extent};
use super::pack::pack_panel;
use crate::element::Element;
use crate::mat::{Elements, MatRef, Typed};
use crate::par::Pointer;

/// A matrix [k, n] packed as GEMM panels. A panel (16 columns on AVX2) should fit the L1 cache, so k should
/// be at most 256.
#[derive(Default)]
pub(crate) struct Panels {
    lines: Vec<CacheLine>,
    rows: usize,
    cols: usize,
}

impl Panels {
    /// Packs `b`, replacing the previous contents.
    pub(crate) fn pack(&mut self, b: MatRef<'_>) {
        (self.rows, self.cols) = (b.rows, b.cols);
        match b.checked().data {
            Elements::F32(x) => self.fill(b.typed(x)),
            Elements::Bf16(x) => self.fill(b.typed(x)),
            Elements::Int8(x, _) => self.fill(b.typed(x)),
        }
    }

    fn fill<E: Element>(&mut self, b: Typed<'_, E>) {
        Arch::new().dispatch(Fill { to: self, b });
    }
}

struct Fill<'a, E> {
    to: &'a mut Panels,
    b: Typed<'a, E>,
}

impl<E: Element> WithSimd for Fill<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (k, n) = (self.to.rows, self.to.cols);
        let len = k * n.next_multiple_of(S::F32_LANES);
        if self.to.lines.len() * CacheLine::LEN < len {
            self.to.lines.resize(len.div_ceil(CacheLine::LEN), CacheLine::zeroed());
        }
        let panels: &mut [f32] = bytemuck::cast_slice_mut(&mut self.to.lines);
        for j in (0..n).step_by(2 * S::F32_LANES) {
            let (cols, vectors) = panel_extent::<S>(j, &(0..n));
            pack_panel::<S, E>(&mut panels[j * k..], vectors * S::F32_LANES, self.b, 0..k, j..j + cols);
        }
    }
}

/// C = init + α·A·B on the calling thread, with A [m, k] in f32 and C [m, n]; C has a row stride of `c_stride`
/// elements.
///
/// # Panics
/// When the shapes do not match or a slice is too short.
#[inline(always)]
pub(crate) fn gemm_packed(c: &mut [f32], c_stride: usize, init: Init, alpha: f32, a: MatRef, b: &Panels) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert!(b.rows == k && m > 0 && n > 0, "A [{m}, {k}] and B [{}, {n}]", b.rows);
    let length = (m - 1).checked_mul(c_stride).and_then(|l| l.checked_add(n));
    let fits = c_stride >= n && length.is_some_and(|l| l <= c.len());
    assert!(fits, "C [{m}, {n}] does not fit its slice");
    if let Init::Bias(bias) = init {
        assert_eq!(bias.len(), n, "length of the bias");
    }
    let Elements::F32(x) = a.checked().data else { panic!("A must be f32") };
    let a = a.typed(x);
    let job = Job { c: Pointer(c.as_mut_ptr()), c_stride, init, alpha, m, ks: 0..k, n, a };
    Arch::new().dispatch(Product { job: &job, b });
}

/// A GEMM whose shapes have been checked, so that every tile lies inside C, A and the panels.
struct Product<'a, 'b> {
    job: &'a Job<'b>,
    b: &'a Panels,
}

impl WithSimd for Product<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Product { job, b } = self;
        let (depth, a) = (b.rows, &job.a);
        let panels: &[f32] = bytemuck::cast_slice(&b.lines);
        for j in (0..b.cols).step_by(2 * S::F32_LANES) {
            let (n, vectors) = panel_extent::<S>(j, &(0..b.cols));
            let (b, b_step) = (panels[j * depth..].as_ptr(), vectors * S::F32_LANES);
            for i in (0..job.m).step_by(MR) {
                let (a, a_row, a_step) = (a.x[i * a.row_stride..].as_ptr(), a.row_stride, a.col_stride);
                let tile = Tile { job, simd, i, j, n, first: true, depth, a, a_row, a_step, b, b_step };
                simd.vectorize(Run { tile, m: MR.min(job.m - i), vectors });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::gemm::gemm_serial;

    #[test]
    fn packed_products_are_those_of_the_matrix() {
        let values = |len: usize, step: usize| (0..len).map(move |i| (i * step % 31) as f32 / 16.0 - 1.0);
        let mut panels = Panels::default();
        for (m, k, n) in [(1, 1, 1), (5, 8, 7), (6, 80, 16), (7, 129, 17), (13, 64, 40), (65, 3, 136)] {
            let a: Vec<f32> = values(m * k, 7).collect();
            let b: Vec<f32> = values(k * n, 11).collect();
            let half: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
            let left = [MatRef::f32(&a, m, k), MatRef::f32(&a, k, m).t()];
            let right = [MatRef::f32(&b, k, n), MatRef::f32(&b, n, k).t(), MatRef::bf16(&half, n, k).t()];
            for a in left {
                for b in right {
                    let [mut c, mut want] = [(); 2].map(|()| values(m * n, 5).collect::<Vec<_>>());
                    panels.pack(b);
                    gemm_packed(&mut c, n, Init::Accumulate, 0.5, a, &panels);
                    gemm_serial(&mut want, n, Init::Accumulate, 0.5, a, b);
                    // The values have few binary digits, so their sums are exact in any order.
                    assert_eq!(c, want, "{m}x{k}x{n}");
                }
            }
        }
    }
}
