//! GEMM on the CPU: C = init + α·A·B, for every shape and layout of A and B, with B in f32, bf16 or int8.
//!
//! The blocking follows BLIS (Van Zee and van de Geijn, 2015), and so do the names of its sizes. A micro-tile of C has
//! MR rows and NR columns, and is computed over KC steps of k at a time from NC packed columns of B, which stay in the
//! L2 cache, and MC rows of A, which stay in the L1 cache. MR is the same for all element types; the other sizes are in
//! `kernel.rs` for f32 arithmetic and in `int8.rs` for integer arithmetic. The sizes in this file define tasks: which
//! part of C, or of k, a thread computes at a time.

mod gemv;
#[cfg(target_arch = "x86_64")]
mod int8;
mod kernel;
mod pack;
mod panels;

use std::cell::Cell;

use half::slice::HalfFloatSliceExt;

use crate::element::Element;
use crate::mat::{Elements, MatRef, Scales, Typed};
use crate::math::vectorised;
use crate::par::{self, Pointer};
use kernel::Job;

pub(crate) use pack::transpose4;
pub(crate) use panels::{Panels, gemm_packed};

/// How C is initialized before α·A·B is added; the counterpart of β in BLAS.
#[derive(Debug, Clone, Copy)]
pub enum Init<'a> {
    /// Zeros, β = 0: C = αAB. The old contents of C are not read.
    Zero,
    /// The old contents of C, β = 1: C += αAB.
    Accumulate,
    /// A bias, broadcast to all rows: C = b + αAB.
    Bias(&'a [f32]),
}

/// Maximum number of rows and columns of C per task. Each task packs its own part of B, so tall tasks pack less often.
const TASK_ROWS: usize = 1290;
const TASK_COLS: usize = 256;
/// Tasks are halved until there are this many, enough for the threads of a large machine,
const TASKS: usize = 32;
/// or until another halving would leave fewer multiply-adds per task than this.
const TASK_WORK: usize = 1 << 19;
/// If C has at most this many elements, k is split instead, into ranges of at least this many steps.
const SPLIT_K_ELEMENTS: usize = 1 << 15;
const SPLIT_K_STEPS: usize = 192;
/// With up to this many rows of A and at least this many steps of k, dot products with the rows of Bᵀ are faster than
/// packing B.
const GEMV_ROWS: usize = 6;
const GEMV_STEPS: usize = 32;

thread_local! {
    static PARTIAL: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// C = init + α·A·B with A [m, k], B [k, n] and C [m, n]. The rows of C are contiguous, with a row stride of `c_stride`
/// elements.
///
/// C is partitioned by shape alone and every sum runs along k in a fixed order, so the result does not depend
/// on the number of threads. 2mkn FLOPs.
///
/// # Panics
/// When the shapes do not match or a slice is too short.
pub fn gemm(c: &mut [f32], c_stride: usize, init: Init<'_>, alpha: f32, a: MatRef<'_>, b: MatRef<'_>) {
    gemm_on(c, c_stride, init, alpha, a, b, true)
}

/// [`gemm`] on the calling thread only, for use inside a parallel task.
///
/// # Panics
/// When the shapes do not match or a slice is too short.
pub fn gemm_serial(c: &mut [f32], c_stride: usize, init: Init<'_>, alpha: f32, a: MatRef<'_>, b: MatRef<'_>) {
    gemm_on(c, c_stride, init, alpha, a, b, false)
}

/// GEMM on all threads if `parallel`, otherwise on the calling one.
fn gemm_on(c: &mut [f32], c_stride: usize, init: Init, alpha: f32, a: MatRef, b: MatRef, parallel: bool) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(b.rows, k, "rows of B");
    if m == 0 || n == 0 {
        return;
    }
    let length = (m - 1).checked_mul(c_stride).and_then(|l| l.checked_add(n));
    let fits = c_stride >= n && length.is_some_and(|l| l <= c.len());
    assert!(fits, "C [{m}, {n}] does not fit its slice");
    if let Init::Bias(bias) = init {
        assert_eq!(bias.len(), n, "length of the bias");
    }
    if k == 0 {
        return (0..m).for_each(|i| init_row(&mut c[i * c_stride..][..n], init));
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
    let a = a.typed(x);
    let job = Job { c: Pointer(c.as_mut_ptr()), c_stride, init, alpha, m, ks: 0..k, n, a };
    match b.checked().data {
        Elements::F32(x) => job.run(b.typed(x), parallel),
        Elements::Bf16(x) => job.run(b.typed(x), parallel),
        Elements::Int8(x, _) => {
            let b = b.typed(x);
            // Integer arithmetic is up to twice as fast if the rows of both operands are contiguous along k; see
            // `int8.rs`.
            #[cfg(target_arch = "x86_64")]
            if job.suits_integers(&b) {
                return job.run_integers(b, parallel);
            }
            job.run(b, parallel)
        }
    }
}

/// Initializes a row of C.
fn init_row(c: &mut [f32], init: Init) {
    match init {
        Init::Zero => c.fill(0.0),
        Init::Accumulate => (),
        Init::Bias(bias) => c.copy_from_slice(bias),
    }
}

/// The rows and columns of C that one task of an m×n GEMM with k steps computes.
fn task_shape(m: usize, k: usize, n: usize) -> (usize, usize) {
    let (mut rows, mut cols) = (m.min(TASK_ROWS), n.min(TASK_COLS));
    while m.div_ceil(rows) * n.div_ceil(cols) < TASKS && rows * cols * k >= 2 * TASK_WORK {
        // Tall tasks pack B less often; wide tasks share a panel of A. A column costs more than a row.
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
    fn run<E: Element>(&self, b: Typed<'_, E>, parallel: bool) {
        let (m, k, n) = (self.m, self.ks.len(), self.n);
        let work = m * k * n;
        let along_k = b.row_stride == 1 && self.a.col_stride == 1 && !matches!(b.scales, Scales::Rows(_));
        let gemv = m <= GEMV_ROWS && k >= GEMV_STEPS && along_k;
        if !parallel || work < TASK_WORK {
            // SAFETY: `gemm_on` checked all bounds.
            return unsafe { if gemv { self.dots(b, 0..n) } else { self.block(b, 0..m, 0..n) } };
        }
        if gemv {
            let cols = (TASK_WORK / (m * k).max(1)).clamp(16, 512);
            return par::each(n.div_ceil(cols), work, |i| {
                // SAFETY: the tasks have disjoint columns of C, and `gemm_on` checked all bounds.
                unsafe { self.dots(b, i * cols..n.min((i + 1) * cols)) }
            });
        }
        if m * n <= SPLIT_K_ELEMENTS && work >= 2 * TASK_WORK {
            let steps = k.div_ceil(TASKS).max(SPLIT_K_STEPS).max(TASK_WORK / (m * n));
            if steps < k {
                return self.split_k(b, steps);
            }
        }
        let (rows, cols) = task_shape(m, k, n);
        let across = n.div_ceil(cols);
        par::each(m.div_ceil(rows) * across, work, |i| {
            let (i, j) = (i / across * rows, i % across * cols);
            // SAFETY: the tasks have disjoint parts of C, and `gemm_on` checked all bounds.
            unsafe { self.block(b, i..m.min(i + rows), j..n.min(j + cols)) }
        });
    }

    /// Split-K, for a small C and a long k: computes each range of k separately, then adds the partial results in
    /// order.
    fn split_k<E: Element>(&self, b: Typed<'_, E>, steps: usize) {
        let (m, n) = (self.m, self.n);
        let splits = self.ks.len().div_ceil(steps);
        // Taken, not borrowed: while this thread waits for others, rayon may run another GEMM on it.
        let mut partial = PARTIAL.take();
        if partial.len() < splits * m * n {
            partial.resize(splits * m * n, 0.0);
        }
        let all = Pointer(partial.as_mut_ptr());
        par::each(splits, m * n * self.ks.len(), |i| {
            let ks = i * steps..self.ks.end.min((i + 1) * steps);
            let c = all.at(i * m * n);
            let job = Job { c, c_stride: n, init: Init::Zero, alpha: 1.0, ks, ..*self };
            // SAFETY: each range of k has its own matrix in `partial`.
            unsafe { job.block(b, 0..m, 0..n) }
        });
        par::each(m, splits * m * n, |i| {
            // SAFETY: each row of C is written once.
            let c = unsafe { std::slice::from_raw_parts_mut(self.c.at(i * self.c_stride).0, n) };
            init_row(c, self.init);
            for part in partial.chunks_exact(m * n).take(splits) {
                c.iter_mut().zip(&part[i * n..]).for_each(|(c, s)| *c += self.alpha * s);
            }
        });
        PARTIAL.set(partial);
    }
}

/// Columns per task.
const SUM_COLS: usize = 32;

/// `out[j] += Σ_i x[i, j]` for x [rows, cols], the gradient of a bias. Rows are summed in blocks, in order.
///
/// # Panics
/// When the length of x is not a multiple of the length of `out`.
pub fn add_column_sums(out: &mut [f32], x: &[f32]) {
    let cols = out.len();
    assert!(x.len().is_multiple_of(cols.max(1)), "x is not whole rows of {cols}");
    par::rows(out, 1, SUM_COLS, x.len(), |first, out| add_column_sums_of(out, x, cols, first));
}

vectorised! {
    fn add_column_sums_of(out: &mut [f32], x: &[f32], cols: usize, first: usize) {
        for block in x.chunks(cols * 256) {
            let mut sums = [0.0; SUM_COLS];
            for row in block.chunks_exact(cols) {
                let row = &row[first..first + out.len()];
                match <&[f32; SUM_COLS]>::try_from(row) {
                    Ok(row) => sums.iter_mut().zip(row).for_each(|(s, x)| *s += x),
                    Err(_) => sums.iter_mut().zip(row).for_each(|(s, x)| *s += x),
                }
            }
            out.iter_mut().zip(&sums).for_each(|(o, s)| *o += s);
        }
    }
}
