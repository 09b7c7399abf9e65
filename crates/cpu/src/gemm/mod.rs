//! GEMM on the CPU: C = start + α·A·B, for every shape and layout of A and B, with B in f32, bf16 or int8.

mod gemv;
#[cfg(target_arch = "x86_64")]
mod int8;
mod kernel;
mod pack;
mod panels;

use std::cell::Cell;

use half::bf16;
use half::slice::HalfFloatSliceExt;

use crate::math::vectorised;
use crate::par;
pub use kernel::Scales;
pub(crate) use kernel::{Element, LANES8, Pointer, widen8};
use kernel::{Job, Mat};
pub(crate) use pack::transpose4;
pub(crate) use panels::{Panels, gemm_packed};

/// The elements of a matrix operand.
#[derive(Debug, Clone, Copy)]
pub enum Elements<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// bfloat16, converted to f32 as it is read.
    Bf16(&'a [bf16]),
    /// int8 with scales, only for B. With AVX2 and one scale per column, for m ≥ 7 A may be quantized to
    /// int16: |error of C[i, j]| ≤ |α|·max|A[i, ·]| / 65534 · Σ_k |B[k, j]|, plus the roundings of f32.
    Int8(&'a [i8], Scales<'a>),
}

/// A matrix to read: element (i, j) is at `i * row_stride + j * col_stride`.
#[derive(Debug, Clone, Copy)]
pub struct MatRef<'a> {
    /// The elements.
    pub data: Elements<'a>,
    /// The number of rows.
    pub rows: usize,
    /// The number of columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// A row-major f32 matrix.
    pub fn f32(data: &'a [f32], rows: usize, cols: usize) -> MatRef<'a> {
        MatRef { data: Elements::F32(data), rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// A row-major bf16 matrix.
    pub fn bf16(data: &'a [bf16], rows: usize, cols: usize) -> MatRef<'a> {
        MatRef { data: Elements::Bf16(data), rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// A row-major int8 matrix with one scale per row.
    pub fn int8(data: &'a [i8], scales: &'a [f32], rows: usize, cols: usize) -> MatRef<'a> {
        MatRef {
            data: Elements::Int8(data, Scales::Rows(scales)),
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
        }
    }

    /// The same matrix with `row_stride` elements from one row to the next.
    pub fn stride(self, row_stride: usize) -> MatRef<'a> {
        MatRef { row_stride, ..self }
    }

    /// The transpose.
    pub fn t(self) -> MatRef<'a> {
        let data = match self.data {
            Elements::Int8(x, Scales::Rows(s)) => Elements::Int8(x, Scales::Cols(s)),
            Elements::Int8(x, Scales::Cols(s)) => Elements::Int8(x, Scales::Rows(s)),
            data => data,
        };
        MatRef {
            data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    fn checked(self) -> MatRef<'a> {
        let len = match self.data {
            Elements::F32(x) => x.len(),
            Elements::Bf16(x) => x.len(),
            Elements::Int8(x, scales) => {
                let fit = match scales {
                    Scales::None => true,
                    Scales::Rows(s) => s.len() == self.rows,
                    Scales::Cols(s) => s.len() == self.cols,
                };
                assert!(fit, "scales do not fit a matrix of {} by {}", self.rows, self.cols);
                x.len()
            }
        };
        let empty = self.rows == 0 || self.cols == 0;
        let last = || {
            let (i, j) = (
                (self.rows - 1).checked_mul(self.row_stride)?,
                (self.cols - 1).checked_mul(self.col_stride)?,
            );
            i.checked_add(j)
        };
        assert!(
            empty || last().is_some_and(|l| l < len),
            "a matrix of {} by {} does not fit its slice",
            self.rows,
            self.cols
        );
        self
    }
}

/// The value that the matmul is added to (`beta` and the bias of BLAS-like interfaces).
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// C = αAB: the old contents of C are ignored.
    Zero,
    /// C += αAB.
    Keep,
    /// C = b + αAB, with b added to every row.
    Bias(&'a [f32]),
}

/// The maximum rows and columns of a piece of C that one task computes. Each piece packs its own part of B,
/// so tall pieces pack less often.
const PIECE: (usize, usize) = (1290, 256);
/// Pieces are halved until there are this many, enough for the threads of a large machine,
const PIECES: usize = 32;
/// or until another halving would leave fewer multiply-adds per piece than this.
const PIECE_WORK: usize = 1 << 19;
/// For a C of up to this many elements, a long k is split instead, into ranges of at least this many steps.
const SMALL: usize = 1 << 15;
const MIN_DEPTH: usize = 192;
/// Up to this many rows of A, and with at least this many steps of k, dot products with the rows of Bᵀ are
/// faster than packing B.
const FEW_ROWS: usize = 6;
const FEW_DEPTH: usize = 32;

thread_local! {
    static SUMS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// C = start + α·A·B with A [m, k], B [k, n] and C [m, n]; rows of C are contiguous and `c_stride` elements
/// apart.
///
/// C is partitioned by shape alone and every sum runs along k in a fixed order, so the result does not depend
/// on the number of threads. 2mkn FLOPs.
///
/// # Panics
/// When the shapes do not match or a slice is too short.
pub fn gemm(c: &mut [f32], c_stride: usize, start: Start<'_>, alpha: f32, a: MatRef<'_>, b: MatRef<'_>) {
    product(c, c_stride, start, alpha, a, b, true)
}

/// [`gemm`] on the calling thread only, for use inside a parallel task.
///
/// # Panics
/// When the shapes do not match or a slice is too short.
pub fn gemm_here(c: &mut [f32], c_stride: usize, start: Start<'_>, alpha: f32, a: MatRef<'_>, b: MatRef<'_>) {
    product(c, c_stride, start, alpha, a, b, false)
}

fn product(c: &mut [f32], c_stride: usize, start: Start, alpha: f32, a: MatRef, b: MatRef, many: bool) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(b.rows, k, "rows of B");
    if m == 0 || n == 0 {
        return;
    }
    let length = (m - 1).checked_mul(c_stride).and_then(|l| l.checked_add(n));
    let fits = c_stride >= n && length.is_some_and(|l| l <= c.len());
    assert!(fits, "C [{m}, {n}] does not fit its slice");
    if let Start::Bias(bias) = start {
        assert_eq!(bias.len(), n, "length of the bias");
    }
    if k == 0 {
        return (0..m).for_each(|i| begin(&mut c[i * c_stride..][..n], start));
    }
    let wide;
    let x = match a.checked().data {
        Elements::F32(x) => x,
        Elements::Bf16(x) => {
            wide = x.to_f32_vec();
            &wide
        }
        Elements::Int8(..) => panic!("A of int8: only B may be"),
    };
    let a = Mat { x, row_stride: a.row_stride, col_stride: a.col_stride, scales: Scales::None };
    let job = Job { c: Pointer(c.as_mut_ptr()), c_stride, start, alpha, m, ks: 0..k, n, a };
    let (row_stride, col_stride) = (b.row_stride, b.col_stride);
    match b.checked().data {
        Elements::F32(x) => job.run(Mat { x, row_stride, col_stride, scales: Scales::None }, many),
        Elements::Bf16(x) => job.run(Mat { x, row_stride, col_stride, scales: Scales::None }, many),
        Elements::Int8(x, scales) => {
            let b = Mat { x, row_stride, col_stride, scales };
            // Integer arithmetic is up to twice as fast where the rows of both operands are contiguous along
            // k; see the module.
            #[cfg(target_arch = "x86_64")]
            if job.in_integers(&b) {
                return job.run_integers(b, many);
            }
            job.run(b, many)
        }
    }
}

/// Initializes a row of C.
fn begin(c: &mut [f32], start: Start) {
    match start {
        Start::Zero => c.fill(0.0),
        Start::Keep => (),
        Start::Bias(bias) => c.copy_from_slice(bias),
    }
}

/// The rows and columns of a piece of an m×n GEMM with k steps.
fn piece(m: usize, k: usize, n: usize) -> (usize, usize) {
    let (mut rows, mut cols) = (m.min(PIECE.0), n.min(PIECE.1));
    while m.div_ceil(rows) * n.div_ceil(cols) < PIECES && rows * cols * k >= 2 * PIECE_WORK {
        // Tall pieces pack B less often; wide ones share a panel of A. A column costs more than a row.
        if rows > 2 * cols || cols <= 32 {
            if rows <= 12 {
                break;
            }
            rows = rows.div_ceil(2).next_multiple_of(6);
        } else {
            cols = cols.div_ceil(2).next_multiple_of(16);
        }
    }
    (rows, cols)
}

impl Job<'_> {
    fn run<E: Element>(&self, b: Mat<'_, E>, many: bool) {
        let (m, k, n) = (self.m, self.ks.len(), self.n);
        let work = m * k * n;
        let along_k = b.row_stride == 1 && self.a.col_stride == 1 && !matches!(b.scales, Scales::Rows(_));
        let few = m <= FEW_ROWS && k >= FEW_DEPTH && along_k;
        if !many || work < PIECE_WORK {
            // SAFETY: `product` checked all bounds.
            return unsafe { if few { self.dots(b, 0..n) } else { self.block(b, 0..m, 0..n) } };
        }
        if few {
            let cols = (PIECE_WORK / (m * k).max(1)).clamp(16, 512);
            return par::each(n.div_ceil(cols), work, |i| {
                // SAFETY: the pieces are disjoint columns of C, and `product` checked all bounds.
                unsafe { self.dots(b, i * cols..n.min((i + 1) * cols)) }
            });
        }
        if m * n <= SMALL && work >= 2 * PIECE_WORK {
            let depth = k.div_ceil(PIECES).max(MIN_DEPTH).max(PIECE_WORK / (m * n));
            if depth < k {
                return self.split(b, depth);
            }
        }
        let (rows, cols) = piece(m, k, n);
        let across = n.div_ceil(cols);
        par::each(m.div_ceil(rows) * across, work, |i| {
            let (i, j) = (i / across * rows, i % across * cols);
            // SAFETY: the pieces are disjoint parts of C, and `product` checked all bounds.
            unsafe { self.block(b, i..m.min(i + rows), j..n.min(j + cols)) }
        });
    }

    /// Split-k, for a small C and a long k: computes each range of k separately, then adds the partial
    /// results in order.
    fn split<E: Element>(&self, b: Mat<'_, E>, depth: usize) {
        let (m, n) = (self.m, self.n);
        let pieces = self.ks.len().div_ceil(depth);
        // Taken, not borrowed: while this thread waits for others, rayon may run another GEMM on it.
        let mut sums = SUMS.take();
        if sums.len() < pieces * m * n {
            sums.resize(pieces * m * n, 0.0);
        }
        let all = Pointer(sums.as_mut_ptr());
        par::each(pieces, m * n * self.ks.len(), |i| {
            let ks = i * depth..self.ks.end.min((i + 1) * depth);
            let c = all.at(i * m * n);
            let job = Job { c, c_stride: n, start: Start::Zero, alpha: 1.0, ks, ..*self };
            // SAFETY: each range of k has its own matrix in `sums`.
            unsafe { job.block(b, 0..m, 0..n) }
        });
        par::each(m, pieces * m * n, |i| {
            // SAFETY: each row of C is written once.
            let c = unsafe { std::slice::from_raw_parts_mut(self.c.at(i * self.c_stride).0, n) };
            begin(c, self.start);
            for sum in sums.chunks_exact(m * n).take(pieces) {
                c.iter_mut().zip(&sum[i * n..]).for_each(|(c, s)| *c += self.alpha * s);
            }
        });
        SUMS.set(sums);
    }
}

/// Columns that one task sums.
const WIDE: usize = 32;

/// `out[j] += Σ_i x[i, j]` for x [rows, cols], the gradient of a bias. Rows are summed in blocks, in order.
///
/// # Panics
/// When the length of x is not a multiple of the length of `out`.
pub fn add_column_sums(out: &mut [f32], x: &[f32]) {
    let cols = out.len();
    assert!(x.len().is_multiple_of(cols.max(1)), "x is not whole rows of {cols}");
    par::rows(out, 1, WIDE, x.len(), |first, out| add_sums(out, x, cols, first));
}

vectorised! {
    fn add_sums(out: &mut [f32], x: &[f32], cols: usize, first: usize) {
        for block in x.chunks(cols * 256) {
            let mut sums = [0.0; WIDE];
            for row in block.chunks_exact(cols) {
                let row = &row[first..first + out.len()];
                match <&[f32; WIDE]>::try_from(row) {
                    Ok(row) => sums.iter_mut().zip(row).for_each(|(s, x)| *s += x),
                    Err(_) => sums.iter_mut().zip(row).for_each(|(s, x)| *s += x),
                }
            }
            out.iter_mut().zip(&sums).for_each(|(o, s)| *o += s);
        }
    }
}
