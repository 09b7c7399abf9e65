//! Who may queue work, and what was queued: a fault shows at a later call, which then can name the kernels to look at.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};

use cudarc::driver::result::DriverError;

use super::driver::{is_late, text};
use crate::{Error, Result};

/// How many names are kept.
const KEPT: usize = 8;

/// The gate to the stream. What is queued while a thread records becomes part of its recording, so others wait for its end.
pub(super) struct Queue {
    state: Mutex<State>,
    recorded: Condvar,
}

/// What the gate guards.
#[derive(Default)]
pub(super) struct State {
    /// Whether each launch is waited for (`PHEYE_SYNC`), so that a fault is reported with the kernel that it is of.
    pub(super) each: bool,
    /// The thread that records.
    pub(super) recorder: Option<ThreadId>,
    /// Memory to give back when the recording ends.
    pub(super) freed: Vec<u64>,
    /// Kernels queued.
    pub(super) queued: Trail,
    /// Kernels in the recording so far.
    pub(super) recording: Trail,
}

impl Queue {
    pub(super) fn new(each: bool) -> Queue {
        Queue { state: Mutex::new(State { each, ..State::default() }), recorded: Condvar::new() }
    }

    /// Through the gate, once no other thread records.
    pub(super) fn enter(&self) -> MutexGuard<'_, State> {
        let me = thread::current().id();
        let busy = |state: &mut State| state.recorder.is_some_and(|thread| thread != me);
        self.recorded.wait_while(self.lock(), busy).unwrap_or_else(|e| e.into_inner())
    }

    /// The state whoever records. A thread that panicked leaves it whole: every change is one assignment.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Ends the recording, as far as the gate is concerned.
    pub(super) fn open(&self, mut state: MutexGuard<'_, State>) {
        state.recorder = None;
        drop(state);
        self.recorded.notify_all();
    }
}

impl State {
    /// For what no recording can hold.
    pub(super) fn not_recording(&self, what: &'static str) -> Result<()> {
        if self.recorder.is_some() { Err(Error::Unsupported(what)) } else { Ok(()) }
    }

    /// Notes a kernel.
    pub(super) fn push(&mut self, kernel: &'static str) {
        if self.recorder.is_some() { self.recording.push(kernel) } else { self.queued.push(kernel) }
    }

    /// An error of the driver from `call`; with the kernels that may be at fault if it is that of earlier work.
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

/// The last kernels of many.
#[derive(Debug, Default, Clone)]
pub(super) struct Trail {
    names: VecDeque<&'static str>,
    /// How many were pushed in all.
    count: u64,
    /// How many of them are known to have run without a fault.
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

    /// Adds all of another.
    pub(super) fn extend(&mut self, other: &Trail) {
        other.names.iter().for_each(|name| self.push(name));
        self.count += other.count - other.names.len() as u64;
    }

    /// How many there are, for [`Trail::settle`].
    pub(super) fn mark(&self) -> u64 {
        self.count
    }

    /// All up to `mark` ran.
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
        // A wait that began earlier and ended later takes nothing back.
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
