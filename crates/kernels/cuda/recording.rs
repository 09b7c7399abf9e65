//! Captures the stream's work in a CUDA graph, and replays it.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::thread;

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUgraphInstantiate_flags, CUstreamCaptureMode};

use super::driver::{failed, text};
use super::queue::Trail;
use super::{Cuda, Result};
use crate::Error;

/// An instantiated CUDA graph.
pub(crate) struct Recording {
    cuda: Arc<Cuda>,
    graph: sys::CUgraphExec,
    kernels: Trail,
}

// SAFETY: a graph may be used from any thread in which its context is current, by one thread at a time:
// `launch` holds the queue's lock, and `drop` has exclusive access.
unsafe impl Send for Recording {}
// SAFETY: the same as for `Send`.
unsafe impl Sync for Recording {}

impl Cuda {
    /// Captures the work that `work` queues, without running it. Other threads that queue work block until
    /// the recording ends, so `work` must not wait for them. Memory that `work` allocates is allocated at
    /// once and is not part of the graph; memory that it frees is kept until the recording ends.
    pub(crate) fn record(self: &Arc<Cuda>, work: impl FnOnce() -> Result<()>) -> Result<Recording> {
        let mut state = self.enter()?;
        state.not_recording("a recording within recorded work")?;
        // Relaxed mode permits loading modules and allocating memory during the capture.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is alive.
        unsafe { result::stream::begin_capture(self.stream.handle(), mode) }
            .map_err(|error| state.failed("cuStreamBeginCapture", error))?;
        state.recorder = Some(thread::current().id());
        state.recording = Trail::default();
        drop(state);

        let capture = Capture(self);
        let outcome = work();
        let ended = capture.end();
        // An error of `work` also invalidates the capture, and its message is the more useful one.
        outcome?;
        let (template, kernels) = ended?;
        // SAFETY: the template is alive; no flags are set.
        let graph = unsafe { result::graph::instantiate(template.0, CUgraphInstantiate_flags(0)) }
            .map_err(failed("cuGraphInstantiate"))?;
        Ok(Recording { cuda: self.clone(), graph, kernels })
    }

    fn end_recording(&self) -> Result<(Template, Trail)> {
        // The recording must also end if this fails, because other threads wait for it.
        let entered = self.context.enter();
        let mut state = self.queue.lock();
        let kernels = std::mem::take(&mut state.recording);
        // SAFETY: the stream is alive and has been capturing since `record`.
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

/// A recording in progress; it ends also when `work` panics.
struct Capture<'a>(&'a Cuda);

impl Capture<'_> {
    fn end(self) -> Result<(Template, Trail)> {
        ManuallyDrop::new(self).0.end_recording()
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        // During a panic nobody can receive the error.
        let _ = self.0.end_recording();
    }
}

/// A captured graph, from which an executable one is instantiated.
struct Template(sys::CUgraph);

impl Drop for Template {
    fn drop(&mut self) {
        // SAFETY: returned by `cuStreamEndCapture`, destroyed once. A failure leaks host memory only.
        let _ = unsafe { result::graph::destroy(self.0) };
    }
}

impl Recording {
    /// Queues the graph.
    pub(crate) fn launch(&self) -> Result<()> {
        let mut state = self.cuda.enter()?;
        // SAFETY: the graph and the stream are alive. `Graph::launch` holds the memory that the graph uses
        // until the launch is queued, and memory is freed in stream order after it.
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
        // `drop` cannot return an error; a call on the GPU reports the same one.
        let _ = self.cuda.context.enter();
        // SAFETY: instantiated once, destroyed once; the driver keeps a running graph until it completes.
        let _ = unsafe { result::graph::exec_destroy(self.graph) };
    }
}
