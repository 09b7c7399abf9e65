//! Partitions work into pieces for rayon, and runs each piece with the widest vector instructions available.
//!
//! Pieces are few and long. Each is a separate rayon job (`with_max_len`), because rayon would otherwise group several
//! into one job and leave other threads idle.

use rayon::prelude::*;

/// With fewer multiply-adds than this (or elements of an elementwise pass, weighted by their cost), a second thread
/// costs more than it saves.
const SERIAL_BELOW: usize = 1 << 15;

/// A pointer for tasks that write disjoint parts of one slice.
#[derive(Clone, Copy)]
pub(crate) struct Pointer(pub *mut f32);

// SAFETY: the slice is borrowed exclusively while the tasks run, and each task writes its own part.
unsafe impl Send for Pointer {}
// SAFETY: as above.
unsafe impl Sync for Pointer {}

impl Pointer {
    pub(crate) fn at(self, i: usize) -> Pointer {
        Pointer(self.0.wrapping_add(i))
    }
}

/// Runs `f`, a sequence of operations, on a thread of rayon's pool. From a thread outside the pool, each operation
/// would have to wake a pool thread and wait for it.
pub fn inside<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// Runs `f` compiled for the widest vector instructions of this processor.
///
/// Functions that `f` calls are compiled that way only where they are inlined: mark them `#[inline(always)]`.
#[inline(always)]
pub fn simd<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// The vector instructions that [`simd`] selects on this processor. Results may round differently between
/// instruction sets.
pub fn instruction_set() -> &'static str {
    match pulp::Arch::new() {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        pulp::Arch::V3(_) => "AVX2",
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        pulp::Arch::V4(_) => "AVX-512",
        #[cfg(target_arch = "aarch64")]
        pulp::Arch::Neon(_) => "NEON",
        _ => "no vector instructions",
    }
}

/// Calls `f(first, piece)` for each piece of `rows` rows of `out`, a matrix with `cols` columns; `first` is the index
/// of the first row of the piece. Runs in parallel if `work`, the total cost in multiply-adds, is large enough.
pub fn rows<T: Send>(
    out: &mut [T],
    cols: usize,
    rows: usize,
    work: usize,
    f: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    if out.is_empty() {
        return;
    }
    let piece = rows.saturating_mul(cols).max(1);
    if work < SERIAL_BELOW || out.len() <= piece {
        out.chunks_mut(piece).enumerate().for_each(|(i, o)| simd(|| f(i * rows, o)));
    } else {
        let pieces = out.par_chunks_mut(piece).enumerate().with_max_len(1);
        pieces.for_each(|(i, o)| simd(|| f(i * rows, o)));
    }
}

/// Calls `f(i)` for each i in `0..n`, in parallel if `work`, the total cost in multiply-adds, is large enough.
pub fn each(n: usize, work: usize, f: impl Fn(usize) + Sync + Send) {
    if work < SERIAL_BELOW || n <= 1 {
        (0..n).for_each(|i| simd(|| f(i)));
    } else {
        (0..n).into_par_iter().with_max_len(1).for_each(|i| simd(|| f(i)));
    }
}

/// Calls `f` for each of `pieces`, in parallel if `work`, the total cost in multiply-adds, is large enough.
pub fn all<T: Send>(pieces: Vec<T>, work: usize, f: impl Fn(T) + Sync + Send) {
    if work < SERIAL_BELOW || pieces.len() <= 1 {
        pieces.into_iter().for_each(|p| simd(|| f(p)));
    } else {
        pieces.into_par_iter().with_max_len(1).for_each(|p| simd(|| f(p)));
    }
}

/// Calls `f(i, piece)` for the i-th of `pieces`, in parallel if `work`, the total cost in multiply-adds, is large
/// enough. For outputs that are partitioned together, as in `a.chunks_mut(n).zip(b.chunks_mut(m))`.
pub fn pieces<T: Send>(pieces: impl Iterator<Item = T>, work: usize, f: impl Fn(usize, T) + Sync + Send) {
    if work < SERIAL_BELOW {
        pieces.enumerate().for_each(|(i, p)| f(i, p));
    } else {
        let pieces = pieces.collect::<Vec<_>>().into_par_iter().enumerate().with_max_len(1);
        pieces.for_each(|(i, p)| f(i, p));
    }
}
