//! The driver's errors in words, and its handles, which give back what they hold when dropped.
//!
//! A failure to give back is ignored: it can only repeat an error that an earlier call has reported, and nobody is left to act
//! on it. Dropping needs the context current, which `Cuda` sees to.

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUresult};

use crate::{Error, Result};

/// What a call of the driver gives.
pub(super) type Called<T> = std::result::Result<T, DriverError>;

/// An error of the driver, from `call`.
pub(super) fn failed(call: &'static str) -> impl FnOnce(DriverError) -> Error {
    move |error| Error::Driver { call, cause: text(error) }
}

/// Description and name of an error.
pub(super) fn text(error: DriverError) -> String {
    match (error.error_string(), error.error_name()) {
        (Ok(what), Ok(name)) => format!("{} ({})", what.to_string_lossy(), name.to_string_lossy()),
        _ => format!("error {} of the driver", error.0 as u32),
    }
}

/// Whether the error is that of a kernel which ran earlier: such a one comes back from every call that follows it.
pub(super) fn is_late(error: DriverError) -> bool {
    matches!(
        error.0,
        CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
            | CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
    )
}

/// The primary context of a device: the one that other users of the driver in this process share.
pub(super) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
}

impl Context {
    /// Takes the context of `device`, which `cuDeviceGet` gave, and makes it current.
    pub(super) fn retain(device: sys::CUdevice) -> Result<Context> {
        // SAFETY: the caller has the device from `cuDeviceGet`.
        let handle =
            unsafe { result::primary_ctx::retain(device) }.map_err(failed("cuDevicePrimaryCtxRetain"))?;
        let context = Context { device, handle };
        context.enter()?;
        Ok(context)
    }

    /// Makes it the current context of this thread, as all calls on memory, streams and modules need.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained until `self` is dropped.
        unsafe { result::ctx::set_current(self.handle) }.map_err(failed("cuCtxSetCurrent"))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: null unbinds, so that this thread does not keep a context that may be gone; the device is one that
        // `retain` was called on once, and all that is of the context was dropped before.
        let _ = unsafe { result::ctx::set_current(ptr::null_mut()) };
        // SAFETY: as above.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// A stream that does not wait for the legacy default stream.
pub(super) struct Stream(sys::CUstream);

impl Stream {
    pub(super) fn new() -> Result<Stream> {
        let kind = result::stream::StreamKind::NonBlocking;
        result::stream::create(kind).map(Stream).map_err(failed("cuStreamCreate"))
    }

    pub(super) fn handle(&self) -> sys::CUstream {
        self.0
    }

    /// Waits for all its work.
    pub(super) fn wait(&self) -> Called<()> {
        // SAFETY: the stream lives.
        unsafe { result::stream::synchronize(self.0) }
    }

    /// Holds its later work until `event` has passed.
    pub(super) fn wait_for(&self, event: &Event) -> Called<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both live; the driver keeps what it needs of an event that is destroyed before it passes.
        unsafe { result::stream::wait_event(self.0, event.0, flags) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once.
        let _ = unsafe { result::stream::destroy(self.0) };
    }
}

/// A point in a stream's work.
pub(super) struct Event(sys::CUevent);

impl Event {
    /// One to wait for.
    pub(super) fn new() -> Called<Event> {
        Event::with(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    /// One that keeps the time.
    pub(super) fn timing() -> Called<Event> {
        Event::with(sys::CUevent_flags::CU_EVENT_DEFAULT)
    }

    fn with(flags: sys::CUevent_flags) -> Called<Event> {
        result::event::create(flags).map(Event)
    }

    pub(super) fn record(&self, stream: &Stream) -> Called<()> {
        // SAFETY: both live, and are of the same context.
        unsafe { result::event::record(self.0, stream.0) }
    }

    /// Waits until it has passed; at once if it was never recorded.
    pub(super) fn wait(&self) -> Called<()> {
        // SAFETY: the event lives.
        unsafe { result::event::synchronize(self.0) }
    }

    /// Milliseconds from it to `later`; both were made by [`Event::timing`], recorded, and have passed.
    pub(super) fn elapsed(&self, later: &Event) -> Called<f32> {
        // SAFETY: both live; the driver refuses events that keep no time or have not passed.
        unsafe { result::event::elapsed(self.0, later.0) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created by `with`, destroyed once; the driver allows that before it has passed.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

/// Host memory that the device reads by itself.
pub(super) struct Pinned(*mut u8);

impl Pinned {
    pub(super) fn new(bytes: usize) -> Result<Pinned> {
        // SAFETY: a fresh allocation, with no flags.
        let start = unsafe { result::malloc_host(bytes, 0) }.map_err(failed("cuMemHostAlloc"))?;
        Ok(Pinned(start.cast()))
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.0
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: from `cuMemHostAlloc`, freed once; `Cuda` has waited for the copies that read it.
        let _ = unsafe { result::free_host(self.0.cast::<c_void>()) };
    }
}
