//! The thread pool that runs blocks.

use std::sync::OnceLock;
use std::thread;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::Fault;

/// Calls `block` for each number below `count`, in parallel if the system can start threads.
///
/// The emulator has its own thread pool. If the calling thread is a worker of a rayon pool, it must not wait
/// inside rayon: rayon would run other work on it meanwhile, perhaps another launch on the same memory in the
/// middle of this one. In that case a separate thread, which is no rayon worker, waits for the pool, and the
/// caller joins that thread.
pub(crate) fn each(count: u64, block: impl Fn(u64) -> Result<(), Fault> + Sync) -> Result<(), Fault> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let Some(pool) = POOL.get_or_init(|| ThreadPoolBuilder::new().build().ok()) else {
        return (0..count).try_for_each(block);
    };
    let parallel = || pool.install(|| (0..count).into_par_iter().try_for_each(&block));
    if rayon::current_thread_index().is_none() {
        return parallel();
    }
    thread::scope(|scope| match thread::Builder::new().spawn_scoped(scope, parallel) {
        Ok(waiting) => waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(_) => (0..count).try_for_each(&block),
    })
}
