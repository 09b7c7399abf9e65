//! Recording the stream's work into a CUDA graph, and running that.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::thread;

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUgraphInstantiate_flags, CUstreamCaptureMode};

use super::driver::{failed, text};
use super::queue::Trail;
use super::{Cuda, Result};
use crate::Error;

/// Work to run again.
pub(crate) struct Recording {
    cuda: Arc<Cuda>,
    graph: sys::CUgraphExec,
    kernels: Trail,
}

// SAFETY: the driver lets any thread use a graph in whose context it is, one at a time: `launch` is called behind the gate of
// the queue, and a drop has no other user beside it.
unsafe impl Send for Recording {}
// SAFETY: as above.
unsafe impl Sync for Recording {}

impl Cuda {
    /// Records what `work` queues, without running it. Other threads that queue work wait for the end, so `work` must not wait
    /// for them. Memory that it allocates is an ordinary allocation, made now, and not part of the recording; memory that it
    /// gives back is kept until the recording ends.
    pub(crate) fn record(self: &Arc<Cuda>, work: impl FnOnce() -> Result<()>) -> Result<Recording> {
        let mut state = self.enter()?;
        state.not_recording("a recording within recorded work")?;
        // Relaxed: a kernel's module may be loaded, and memory be allocated, while the stream records.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream lives.
        unsafe { result::stream::begin_capture(self.stream.handle(), mode) }
            .map_err(|error| state.failed("cuStreamBeginCapture", error))?;
        state.recorder = Some(thread::current().id());
        state.recording = Trail::default();
        drop(state);

        let capture = Capture(self);
        let outcome = work();
        let ended = capture.end();
        // What went wrong in `work` also spoils the capture, and is the better message.
        outcome?;
        let (template, kernels) = ended?;
        // SAFETY: the template lives; no flags.
        let graph = unsafe { result::graph::instantiate(template.0, CUgraphInstantiate_flags(0)) }
            .map_err(failed("cuGraphInstantiate"))?;
        Ok(Recording { cuda: self.clone(), graph, kernels })
    }

    fn end_recording(&self) -> Result<(Template, Trail)> {
        // Also when the context cannot be entered: the gate must open again.
        let entered = self.context.enter();
        let mut state = self.queue.lock();
        let kernels = std::mem::take(&mut state.recording);
        // SAFETY: the stream lives, and records since `record`.
        let graph = unsafe { result::stream::end_capture(self.stream.handle()) };
        let ended = match graph {
            Ok(graph) if !graph.is_null() => Ok((Template(graph), kernels)),
            Ok(_) => Err(Error::Driver { call: "cuStreamEndCapture", cause: "it gave no graph".to_owned() }),
            Err(error) => Err(Error::Driver { call: "cuStreamEndCapture", cause: text(error) }),
        };
        for addr in std::mem::take(&mut state.freed) {
            self.give_back(addr);
        }
        self.queue.open(state);
        entered.and(ended)
    }
}

/// A recording under way, ended even if `work` panics.
struct Capture<'a>(&'a Cuda);

impl Capture<'_> {
    fn end(self) -> Result<(Template, Trail)> {
        ManuallyDrop::new(self).0.end_recording()
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        // A panic is on its way; nobody would read the error.
        let _ = self.0.end_recording();
    }
}

/// A recorded graph, from which one that runs is made.
struct Template(sys::CUgraph);

impl Drop for Template {
    fn drop(&mut self) {
        // SAFETY: from `cuStreamEndCapture`, destroyed once. A failure would lose memory of the host, and no more.
        let _ = unsafe { result::graph::destroy(self.0) };
    }
}

impl Recording {
    /// Queues all of it.
    pub(crate) fn launch(&self) -> Result<()> {
        let mut state = self.cuda.enter()?;
        // SAFETY: graph and stream live; `Graph` holds the memory that it touches.
        unsafe { result::graph::launch(self.graph, self.cuda.stream.handle()) }
            .map_err(|error| state.failed("cuGraphLaunch", error))?;
        if state.recorder.is_some() {
            state.recording.extend(&self.kernels);
            return Ok(());
        }
        state.queued.extend(&self.kernels);
        if state.each { self.cuda.settle(state, "a recording") } else { Ok(()) }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Nobody is left to act on a failure here; it repeats one that a call on the GPU reports.
        let _ = self.cuda.context.enter();
        // SAFETY: instantiated once, destroyed once; if it still runs, the driver keeps it until it is done.
        let _ = unsafe { result::graph::exec_destroy(self.graph) };
    }
}
