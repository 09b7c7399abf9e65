//! Runs CUDA kernels on a CPU and detects their faults.
//!
//! The host's C++ compiler compiles a kernel with `include/emulator.h` and `-fsanitize=thread,alignment`.
//! Each thread of a block runs as a fiber, and each load and store calls a function of this crate. [`run`]
//! executes a launch, with the blocks in parallel and the threads of a block in a chosen [`Order`]. It
//! returns the first [`Fault`]: an access outside the buffers that the launch named, a misaligned access, a
//! read of shared memory that no thread wrote or that a `cp.async` may not have filled yet, a race (two
//! threads that access a word of shared memory, or of global memory that the launch updates, without a barrier between them, or in
//! different blocks without fences and an atomic operation), a barrier or a warp operation
//! that not all of its threads reach, an output element that no thread wrote.
//!
//! An asynchronous copy is performed only when the program waits for it, so that a missing wait is detected.
#![allow(unsafe_code)]

mod block;
mod calls;
mod fault;
mod global;
mod matrix;
mod order;
mod pool;
mod races;
mod shared;
mod warp;

pub use fault::{Fault, Kind};
pub use global::{Access, Range};
pub use matrix::Rounding;
pub use order::Order;

/// The entry point of a kernel compiled for the emulator. It takes a pointer to the parameter struct.
pub type Entry = unsafe extern "C" fn(params: *const u8);

/// A kernel with its grid and its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The kernel's name, for error messages.
    pub kernel: &'a str,
    /// The kernel's entry point.
    pub entry: Entry,
    /// The number of blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads per block.
    pub threads: u32,
    /// Bytes of dynamic shared memory per block.
    pub shared: usize,
    /// The parameter struct, aligned to 16 bytes.
    pub params: &'a [u8],
    /// The memory that the kernel may access, and how.
    pub ranges: &'a [Range],
    /// The order in which the threads of a block run.
    pub order: Order,
    /// How `mma` rounds.
    pub rounding: Rounding,
}

/// The maximum number of threads per block.
pub const MAX_THREADS: u32 = 1024;

/// Runs all blocks of `launch`.
///
/// # Errors
/// The first fault that is detected.
///
/// # Safety
/// `launch.entry` was compiled with `emulator.h` as described above, and its parameter struct has the layout of
/// `launch.params`, which is aligned to 16 bytes. Each range is allocated memory that nothing else accesses during the call.
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
        // SAFETY: guaranteed by the caller.
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
