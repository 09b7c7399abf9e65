//! Runs CUDA kernels on a CPU and finds their faults.
//!
//! A kernel is compiled by the host's C++ compiler with `include/emulator.h` and `-fsanitize=thread,alignment`; each thread of a block is
//! then a fiber, and each load and store a call into this crate. [`run`] executes a launch, blocks in parallel, the threads of a
//! block in a chosen [`Order`], and reports the first [`Fault`]: an access outside the buffers that the launch named, a misaligned
//! one, a read of shared memory that nobody wrote or that a `cp.async` has yet to fill, two threads on one shared word without a
//! barrier between them, a barrier or a warp operation that not all its threads reach, an output element that nobody wrote.
//!
//! Asynchronous copies land as late as the waits of the program allow.
#![allow(unsafe_code)]

mod block;
mod calls;
mod fault;
mod global;
mod matrix;
mod order;
mod pool;
mod shared;
mod warp;

pub use fault::{Fault, Kind};
pub use global::{Access, Range};
pub use order::Order;

/// A kernel compiled for the emulator: takes a pointer to its parameters.
pub type Entry = unsafe extern "C" fn(params: *const u8);

/// A kernel, its grid and its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Name, for reports.
    pub kernel: &'a str,
    /// The kernel.
    pub entry: Entry,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
    /// The parameter struct, aligned to 16 bytes.
    pub params: &'a [u8],
    /// The memory that the kernel may touch, and how.
    pub ranges: &'a [Range],
    /// In which order the threads of a block run.
    pub order: Order,
}

/// Most threads in a block.
pub const MAX_THREADS: u32 = 1024;

/// Runs all blocks of `launch`.
///
/// # Errors
/// The first fault found.
///
/// # Safety
/// `launch.entry` was compiled with `emulator.h` as described above and takes a parameter struct of the layout of
/// `launch.params`, which is aligned to 16 bytes; each range is allocated memory that nothing else touches meanwhile.
pub unsafe fn run(launch: &Launch) -> Result<(), Fault> {
    if launch.threads == 0 || launch.threads > MAX_THREADS || !launch.threads.is_multiple_of(32) {
        return Err(Fault::new(launch.kernel, [0; 3], 0, Kind::Threads(launch.threads)));
    }
    let [x, y, z] = launch.grid.map(u64::from);
    let Some(blocks) = x.checked_mul(y).and_then(|xy| xy.checked_mul(z)) else {
        return Err(Fault::new(launch.kernel, [0; 3], 0, Kind::Grid(launch.grid)));
    };
    let globals = global::Globals::new(launch.ranges);
    pool::each(blocks, |i| {
        let at = [(i % x) as u32, (i / x % y) as u32, (i / (x * y)) as u32];
        // SAFETY: the caller's promise, passed on.
        unsafe { block::run(launch, &globals, at) }
    })?;
    if blocks > 0 {
        globals.all_written().map_err(|kind| Fault::new(launch.kernel, [0; 3], 0, kind))
    } else {
        Ok(())
    }
}

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
