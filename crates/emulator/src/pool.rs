//! The threads that run blocks.

use std::sync::OnceLock;
use std::thread;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::Fault;

/// Does `block` for each number below `count`, in parallel where the system has threads to give.
///
/// The threads are the emulator's own. One of the caller's that waited for rayon would take up other work meanwhile, which
/// might be another launch, in the midst of this one and on the same memory; so such a thread waits by a thread that is no
/// worker.
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
