//! One piece of a product: panels of B packed for the L1 cache, and the loop over k that holds a tile of C in registers.

use std::cell::RefCell;
use std::ops::Range;

use half::bf16;
use pulp::{Arch, Simd, WithSimd};

use super::Start;

/// Rows of a tile: with two vectors of columns, 12 of 16 registers accumulate.
const TILE: usize = 6;
/// Steps along k for which a panel of B, 16 columns on AVX2, takes half of the L1 cache.
const DEPTH: usize = 256;

/// A storage type of B.
pub(super) trait Element: Copy + Sync + 'static {
    fn wide(self) -> f32;
    /// The slice itself if it needs no widening.
    fn plain(x: &[Self]) -> Option<&[f32]>;
}

impl Element for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
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
    fn plain(_: &[bf16]) -> Option<&[f32]> {
        None
    }
}

#[derive(Clone, Copy)]
pub(super) struct Mat<'a, E> {
    pub x: &'a [E],
    pub row_stride: usize,
    pub col_stride: usize,
}

/// A product but for B. The strides and lengths have been checked.
pub(super) struct Job<'a> {
    pub c: *mut f32,
    pub c_stride: usize,
    pub start: Start<'a>,
    pub alpha: f32,
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub a: Mat<'a, f32>,
}

// SAFETY: `c` points into a slice that the caller of `gemm` lends exclusively, and tasks write disjoint parts of it.
unsafe impl Sync for Job<'_> {}

thread_local! {
    static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Job<'_> {
    /// Rows `rows` and columns `cols` of C.
    ///
    /// # Safety
    /// The ranges lie inside C, the matrices inside their slices, and nobody else touches this part of C.
    pub(super) unsafe fn block<E: Element>(&self, b: Mat<'_, E>, rows: Range<usize>, cols: Range<usize>) {
        PANEL.with_borrow_mut(|panel| Arch::new().dispatch(Block { job: self, b, rows, cols, panel }));
    }

    /// Columns `cols` of C by dot products, for A and Bᵀ with contiguous rows.
    ///
    /// # Safety
    /// As [`Job::block`].
    #[inline(always)]
    pub(super) unsafe fn dots<E: Element>(&self, b: Mat<'_, E>, cols: Range<usize>) {
        for j in cols {
            let w = &b.x[j * b.col_stride..][..self.k];
            for i in 0..self.m {
                let sum = dot(&self.a.x[i * self.a.row_stride..][..self.k], w);
                // SAFETY: (i, j) lies inside C.
                unsafe {
                    let c = self.c.add(i * self.c_stride + j);
                    *c = self.base(j, c) + self.alpha * sum;
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn base(&self, j: usize, c: *const f32) -> f32 {
        match self.start {
            Start::Zero => 0.0,
            // SAFETY: the caller's `c` points at an element of C.
            Start::Keep => unsafe { *c },
            Start::Bias(b) => b[j],
        }
    }
}

#[inline(always)]
fn dot<E: Element>(x: &[f32], w: &[E]) -> f32 {
    const LANES: usize = 32;
    let mut sums = [0.0; LANES];
    let (xs, ws) = (x.chunks_exact(LANES), w.chunks_exact(LANES));
    let tail: f32 = xs.remainder().iter().zip(ws.remainder()).map(|(x, w)| x * w.wide()).sum();
    for (x, w) in xs.zip(ws) {
        for l in 0..LANES {
            sums[l] += x[l] * w[l].wide();
        }
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for l in 0..width {
            sums[l] += sums[l + width];
        }
    }
    sums[0] + tail
}

struct Block<'a, 'b, E> {
    job: &'a Job<'b>,
    b: Mat<'a, E>,
    rows: Range<usize>,
    cols: Range<usize>,
    panel: &'a mut Vec<f32>,
}

impl<E: Element> WithSimd for Block<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Block { job, b, rows, cols, panel } = self;
        let wide = 2 * S::F32_LANES;
        panel.resize(DEPTH * wide, 0.0);
        for k0 in (0..job.k.max(1)).step_by(DEPTH) {
            let depth = DEPTH.min(job.k - k0);
            for j in cols.clone().step_by(wide) {
                let n = wide.min(cols.end - j);
                let vectors = if n <= S::F32_LANES { 1 } else { 2 };
                // Rows of B that are used once or twice are not worth a copy.
                let direct = (n == vectors * S::F32_LANES && b.col_stride == 1 && rows.len() <= 2 * TILE)
                    .then(|| E::plain(b.x))
                    .flatten();
                let (panel, b_step) = match direct {
                    Some(x) => (x[k0 * b.row_stride + j..].as_ptr(), b.row_stride),
                    None => {
                        pack(panel, vectors * S::F32_LANES, b, k0..k0 + depth, j..j + n);
                        (panel.as_ptr(), vectors * S::F32_LANES)
                    }
                };
                let tiles = rows.len().div_ceil(TILE);
                for t in 0..tiles {
                    let (i, end) = (rows.start + rows.len() * t / tiles, rows.start + rows.len() * (t + 1) / tiles);
                    let tile = Tile { job, simd, i, j, n, k0, depth, b: panel, b_step };
                    // SAFETY: the tile lies inside C by the contract of `block`; the panel holds `depth` steps.
                    unsafe {
                        match (vectors, end - i) {
                            (2, 6) => tile.run::<6, 2>(),
                            (2, 5) => tile.run::<5, 2>(),
                            (2, 4) => tile.run::<4, 2>(),
                            (2, 3) => tile.run::<3, 2>(),
                            (2, 2) => tile.run::<2, 2>(),
                            (2, _) => tile.run::<1, 2>(),
                            (_, 6) => tile.run::<6, 1>(),
                            (_, 5) => tile.run::<5, 1>(),
                            (_, 4) => tile.run::<4, 1>(),
                            (_, 3) => tile.run::<3, 1>(),
                            (_, 2) => tile.run::<2, 1>(),
                            (_, _) => tile.run::<1, 1>(),
                        }
                    }
                }
            }
        }
    }
}

/// panel[k, 0..wide] = B[ks.start + k, js], zeros beyond js.
#[inline(always)]
fn pack<E: Element>(panel: &mut [f32], wide: usize, b: Mat<'_, E>, ks: Range<usize>, js: Range<usize>) {
    let panel = &mut panel[..ks.len() * wide];
    if js.len() < wide {
        panel.fill(0.0);
    }
    if b.col_stride == 1 {
        for (k, row) in ks.zip(panel.chunks_exact_mut(wide)) {
            let from = &b.x[k * b.row_stride..][js.clone()];
            row.iter_mut().zip(from).for_each(|(p, x)| *p = x.wide());
        }
    } else if b.row_stride == 1 && js.len() == wide && wide.is_multiple_of(8) {
        for l in (0..wide).step_by(8) {
            let from: [&[E]; 8] = std::array::from_fn(|r| &b.x[(js.start + l + r) * b.col_stride..][ks.clone()]);
            transpose(panel, wide, l, from);
        }
    } else {
        for (l, j) in js.enumerate() {
            for (k, row) in ks.clone().zip(panel.chunks_exact_mut(wide)) {
                row[l] = b.x[k * b.row_stride + j * b.col_stride].wide();
            }
        }
    }
}

/// panel[k, l..l + 8] = from[..][k], in blocks that fit the registers.
#[inline(always)]
fn transpose<E: Element>(panel: &mut [f32], wide: usize, l: usize, from: [&[E]; 8]) {
    let depth = from[0].len();
    let whole = depth - depth % 8;
    for k in (0..whole).step_by(8) {
        let mut block = [[0.0; 8]; 8];
        for (row, from) in block.iter_mut().zip(from) {
            let from: &[E; 8] = from[k..k + 8].try_into().unwrap_or_else(|_| unreachable!());
            *row = from.map(E::wide);
        }
        for c in 0..8 {
            let to = &mut panel[(k + c) * wide + l..][..8];
            for r in 0..8 {
                to[r] = block[r][c];
            }
        }
    }
    for k in whole..depth {
        for r in 0..8 {
            panel[k * wide + l + r] = from[r][k].wide();
        }
    }
}

struct Tile<'a, 'b, S> {
    job: &'a Job<'b>,
    simd: S,
    i: usize,
    j: usize,
    n: usize,
    k0: usize,
    depth: usize,
    b: *const f32,
    b_step: usize,
}

impl<S: Simd> Tile<'_, '_, S> {
    /// M rows and V vectors of columns of C.
    ///
    /// # Safety
    /// Rows i..i + M and columns j..j + n lie inside C; `b` points at `depth` rows of V vectors, `b_step` apart.
    #[inline(always)]
    unsafe fn run<const M: usize, const V: usize>(self) {
        let Tile { job, simd, .. } = self;
        let (a_row, a_step) = (job.a.row_stride, job.a.col_stride);
        let mut acc = [[simd.splat_f32s(0.0); V]; M];
        let mut a = job.a.x.as_ptr().wrapping_add(self.i * a_row + self.k0 * a_step);
        let mut b = self.b;
        for _ in 0..self.depth {
            // SAFETY: A holds rows i..i + M and columns k0..k0 + depth; of B see above.
            unsafe {
                let mut bs = [simd.splat_f32s(0.0); V];
                for (v, x) in bs.iter_mut().enumerate() {
                    *x = b.add(v * S::F32_LANES).cast::<S::f32s>().read_unaligned();
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = simd.splat_f32s(*a.add(r * a_row));
                    for (acc, b) in acc.iter_mut().zip(bs) {
                        *acc = simd.mul_add_e_f32s(x, b, *acc);
                    }
                }
            }
            (a, b) = (a.wrapping_add(a_step), b.wrapping_add(self.b_step));
        }
        let start = if self.k0 == 0 { job.start } else { Start::Keep };
        let alpha = simd.splat_f32s(job.alpha);
        for (r, acc) in acc.iter().enumerate() {
            let c = job.c.wrapping_add((self.i + r) * job.c_stride + self.j);
            if self.n == V * S::F32_LANES {
                for (v, &x) in acc.iter().enumerate() {
                    // SAFETY: all n columns lie inside C, and inside the bias, whose length is C's width.
                    unsafe {
                        let c = c.add(v * S::F32_LANES).cast::<S::f32s>();
                        let x = simd.mul_f32s(alpha, x);
                        c.write_unaligned(match start {
                            Start::Zero => x,
                            Start::Keep => simd.add_f32s(c.read_unaligned(), x),
                            Start::Bias(b) => {
                                let b = b.as_ptr().add(self.j + v * S::F32_LANES).cast::<S::f32s>();
                                simd.add_f32s(b.read_unaligned(), x)
                            }
                        });
                    }
                }
            } else {
                let acc: &[f32] = bytemuck::cast_slice(acc);
                for (l, x) in acc.iter().take(self.n).enumerate() {
                    // SAFETY: column j + l lies inside C.
                    unsafe {
                        let c = c.add(l);
                        *c = match start {
                            Start::Zero => 0.0,
                            Start::Keep => *c,
                            Start::Bias(b) => b[self.j + l],
                        } + job.alpha * x;
                    }
                }
            }
        }
    }
}
