//! Cutting work into pieces for rayon, and running a piece with the widest vector instructions at hand.
//!
//! Pieces are few and long. Each is a job of its own (`with_max_len`): rayon would else hand out several at once, and a thread be left
//! with them while the others have none.

use rayon::prelude::*;

/// Below this many multiply-adds (or elements of a pointwise pass, weighted by their cost) a second thread costs more than it brings.
const SERIAL_BELOW: usize = 1 << 15;

/// Runs `f`, a run of many operations, as one of rayon's threads: each cuts its work where it is, while a thread from outside would
/// wake another for every operation, and sleep until it is done.
pub fn inside<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// Runs `f` compiled for the widest vector instructions that this processor has.
///
/// What `f` calls is compiled so too only where it is inlined: mark it `#[inline(always)]`.
#[inline(always)]
pub fn simd<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// The vector instructions that [`simd`] chooses on this processor: other ones round otherwise.
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

/// Calls `f(first, piece)` for each piece of `rows` rows of `out`, a matrix with `cols` columns, in parallel when the
/// whole is worth `work` steps. `first` is the piece's first row.
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

/// Calls `f(i)` for each of `0..n`, in parallel when the whole is worth `work` steps.
pub fn each(n: usize, work: usize, f: impl Fn(usize) + Sync + Send) {
    if work < SERIAL_BELOW || n <= 1 {
        (0..n).for_each(|i| simd(|| f(i)));
    } else {
        (0..n).into_par_iter().with_max_len(1).for_each(|i| simd(|| f(i)));
    }
}

/// Calls `f` on each of `pieces`, in parallel when the whole is worth `work` steps.
pub fn all<T: Send>(pieces: Vec<T>, work: usize, f: impl Fn(T) + Sync + Send) {
    if work < SERIAL_BELOW || pieces.len() <= 1 {
        pieces.into_iter().for_each(|p| simd(|| f(p)));
    } else {
        pieces.into_par_iter().with_max_len(1).for_each(|p| simd(|| f(p)));
    }
}

/// Calls `f(i, piece)` for piece i of `pieces`, in parallel when the whole is worth `work` steps: for outputs that are
/// cut together, as in `a.chunks_mut(n).zip(b.chunks_mut(m))`.
pub fn pieces<T: Send>(pieces: impl Iterator<Item = T>, work: usize, f: impl Fn(usize, T) + Sync + Send) {
    if work < SERIAL_BELOW {
        pieces.enumerate().for_each(|(i, p)| f(i, p));
    } else {
        let pieces = pieces.collect::<Vec<_>>().into_par_iter().enumerate().with_max_len(1);
        pieces.for_each(|(i, p)| f(i, p));
    }
}
