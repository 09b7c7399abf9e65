//! The lock of the stream, and the names of the queued kernels: the driver reports a fault at a later call,
//! whose error lists the kernels that may have caused it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};

use cudarc::driver::result::DriverError;

use super::driver::{is_late, text};
use crate::{Error, Result};

/// How many of the last kernel names are kept.
const KEPT: usize = 8;

/// The lock of the stream. While a thread records, everything queued becomes part of its recording, so other
/// threads wait for its end.
pub(super) struct Queue {
    state: Mutex<State>,
    recorded: Condvar,
}

/// The state behind the lock.
#[derive(Default)]
pub(super) struct State {
    /// Whether to wait after each launch (`PHEYE_SYNC`), so that a fault is reported by the launch that
    /// caused it.
    pub(super) each: bool,
    /// The thread that is recording.
    pub(super) recorder: Option<ThreadId>,
    /// Addresses to free when the recording ends.
    pub(super) freed: Vec<u64>,
    /// The kernels queued on the stream.
    pub(super) queued: Trail,
    /// The kernels of the current recording.
    pub(super) recording: Trail,
}

impl Queue {
    pub(super) fn new(each: bool) -> Queue {
        Queue { state: Mutex::new(State { each, ..State::default() }), recorded: Condvar::new() }
    }

    /// Waits until no other thread records, and locks the state.
    pub(super) fn enter(&self) -> MutexGuard<'_, State> {
        let me = thread::current().id();
        let busy = |state: &mut State| state.recorder.is_some_and(|thread| thread != me);
        self.recorded.wait_while(self.lock(), busy).unwrap_or_else(|e| e.into_inner())
    }

    /// Locks the state, whether or not another thread records. A poisoned lock is recovered, because each
    /// change is one assignment.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Marks the recording as ended and wakes the waiting threads.
    pub(super) fn open(&self, mut state: MutexGuard<'_, State>) {
        state.recorder = None;
        drop(state);
        self.recorded.notify_all();
    }
}

impl State {
    /// Returns an error if a recording is in progress, for operations that cannot be captured.
    pub(super) fn not_recording(&self, what: &'static str) -> Result<()> {
        if self.recorder.is_some() { Err(Error::Unsupported(what)) } else { Ok(()) }
    }

    /// Adds the name of a queued kernel.
    pub(super) fn push(&mut self, kernel: &'static str) {
        if self.recorder.is_some() { self.recording.push(kernel) } else { self.queued.push(kernel) }
    }

    /// Converts a driver error of the function `call`. If an earlier kernel caused it, the message lists the
    /// kernels that may be at fault.
    pub(super) fn failed(&self, call: &'static str, error: DriverError) -> Error {
        let mut cause = text(error);
        if is_late(error) {
            cause = format!("{cause}; {}", self.queued);
            if !self.each {
                cause += "; PHEYE_SYNC=1 waits for each kernel and names the one at fault";
            }
        }
        Error::Driver { call, cause }
    }
}

/// The names of the last kernels of a longer sequence.
#[derive(Debug, Default, Clone)]
pub(super) struct Trail {
    names: VecDeque<&'static str>,
    /// The number of kernels in the sequence.
    count: u64,
    /// The number of kernels known to have completed without a fault.
    settled: u64,
}

impl Trail {
    pub(super) fn push(&mut self, name: &'static str) {
        if self.names.len() == KEPT {
            self.names.pop_front();
        }
        self.names.push_back(name);
        self.count += 1;
    }

    /// Appends another sequence.
    pub(super) fn extend(&mut self, other: &Trail) {
        other.names.iter().for_each(|name| self.push(name));
        self.count += other.count - other.names.len() as u64;
    }

    /// The number of kernels so far, for [`Trail::settle`].
    pub(super) fn mark(&self) -> u64 {
        self.count
    }

    /// Marks the first `mark` kernels as completed.
    pub(super) fn settle(&mut self, mark: u64) {
        self.settled = self.settled.max(mark);
    }
}

impl std::fmt::Display for Trail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open = self.count - self.settled;
        let shown = self.names.len().min(usize::try_from(open).unwrap_or(usize::MAX));
        let names: Vec<_> = self.names.range(self.names.len() - shown..).copied().collect();
        let names = names.join(", ");
        match open {
            0 => write!(f, "no kernel was queued since the last synchronization"),
            1 => write!(f, "queued since the last synchronization: {names}"),
            _ if shown as u64 == open => {
                write!(f, "queued since the last synchronization, in this order: {names}")
            }
            _ => write!(f, "of {open} kernels queued since the last synchronization the last are {names}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Trail;

    #[test]
    fn a_trail_names_what_has_not_settled() {
        let mut trail = Trail::default();
        assert!(trail.to_string().starts_with("no kernel"));
        trail.push("a");
        let mark = trail.mark();
        trail.push("b");
        trail.push("c");
        assert!(trail.to_string().ends_with("in this order: a, b, c"), "{trail}");
        trail.settle(mark);
        assert!(trail.to_string().ends_with("in this order: b, c"), "{trail}");
        // A wait that began earlier but ended later does not lower the count.
        trail.settle(0);
        assert!(trail.to_string().ends_with("in this order: b, c"), "{trail}");
    }

    #[test]
    fn a_trail_keeps_the_last_and_counts_all() {
        let mut graph = Trail::default();
        (0..20).for_each(|_| graph.push("x"));
        graph.push("y");
        let mut trail = Trail::default();
        trail.push("first");
        trail.extend(&graph);
        let text = trail.to_string();
        assert!(text.contains("of 22 kernels") && text.ends_with("x, x, y"), "{text}");
        trail.settle(trail.mark());
        assert!(trail.to_string().starts_with("no kernel"));
    }
}
