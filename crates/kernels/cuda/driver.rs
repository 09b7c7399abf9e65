//! Error messages of the driver, and its handles, each of which is destroyed on drop.
//!
//! Errors of a destroy call are ignored: `drop` cannot return them, and they only repeat an error that an
//! earlier call reported. The context must be current when a handle is dropped, which `Cuda` ensures.

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUresult};

use crate::{Error, Result};

/// The result of a driver call.
pub(super) type Called<T> = std::result::Result<T, DriverError>;

/// Converts a driver error of the function `call`.
pub(super) fn failed(call: &'static str) -> impl FnOnce(DriverError) -> Error {
    move |error| Error::Driver { call, cause: text(error) }
}

/// The description and the name of a driver error.
pub(super) fn text(error: DriverError) -> String {
    match (error.error_string(), error.error_name()) {
        (Ok(what), Ok(name)) => format!("{} ({})", what.to_string_lossy(), name.to_string_lossy()),
        _ => format!("error {} of the driver", error.0 as u32),
    }
}

/// Whether the error was caused by a kernel that ran earlier (a sticky error): every later call returns it
/// too.
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

/// The primary context of a device, which all users of the CUDA runtime in this process share.
pub(super) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
}

impl Context {
    /// Retains the primary context of `device`, which is from `cuDeviceGet`, and makes it current.
    pub(super) fn retain(device: sys::CUdevice) -> Result<Context> {
        // SAFETY: the caller passes a device from `cuDeviceGet`.
        let handle =
            unsafe { result::primary_ctx::retain(device) }.map_err(failed("cuDevicePrimaryCtxRetain"))?;
        let context = Context { device, handle };
        context.enter()?;
        Ok(context)
    }

    /// Makes it the current context of this thread, as calls on memory, streams and modules require.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained until `self` is dropped.
        unsafe { result::ctx::set_current(self.handle) }.map_err(failed("cuCtxSetCurrent"))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: null unbinds the context, so that this thread does not keep one that may be destroyed.
        // `retain` was called once for the device, and everything in the context was dropped before.
        let _ = unsafe { result::ctx::set_current(ptr::null_mut()) };
        // SAFETY: as above.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// A stream that does not synchronize with the legacy default stream.
pub(super) struct Stream(sys::CUstream);

impl Stream {
    pub(super) fn new() -> Result<Stream> {
        let kind = result::stream::StreamKind::NonBlocking;
        result::stream::create(kind).map(Stream).map_err(failed("cuStreamCreate"))
    }

    pub(super) fn handle(&self) -> sys::CUstream {
        self.0
    }

    /// Waits for all work on the stream.
    pub(super) fn wait(&self) -> Called<()> {
        // SAFETY: the stream is alive.
        unsafe { result::stream::synchronize(self.0) }
    }

    /// Makes later work on the stream wait for `event`.
    pub(super) fn wait_for(&self, event: &Event) -> Called<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both are alive; if the event is destroyed before it passes, the driver keeps what it needs
        // of it.
        unsafe { result::stream::wait_event(self.0, event.0, flags) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once.
        let _ = unsafe { result::stream::destroy(self.0) };
    }
}

/// An event: a point in a stream's work.
pub(super) struct Event(sys::CUevent);

impl Event {
    /// An event without timing.
    pub(super) fn new() -> Called<Event> {
        Event::with(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    /// An event that stores its time, for [`Event::elapsed`].
    pub(super) fn timing() -> Called<Event> {
        Event::with(sys::CUevent_flags::CU_EVENT_DEFAULT)
    }

    fn with(flags: sys::CUevent_flags) -> Called<Event> {
        result::event::create(flags).map(Event)
    }

    pub(super) fn record(&self, stream: &Stream) -> Called<()> {
        // SAFETY: the event and the stream are alive and belong to the same context.
        unsafe { result::event::record(self.0, stream.0) }
    }

    /// Waits until the event has passed; returns at once if it was never recorded.
    pub(super) fn wait(&self) -> Called<()> {
        // SAFETY: the event is alive.
        unsafe { result::event::synchronize(self.0) }
    }

    /// The milliseconds from this event to `later`. Both must be from [`Event::timing`] and have passed.
    pub(super) fn elapsed(&self, later: &Event) -> Called<f32> {
        // SAFETY: both are alive; the driver returns an error for events without timing or that have not
        // passed.
        unsafe { result::event::elapsed(self.0, later.0) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created by `with`, destroyed once; the driver permits destroying an event that has not
        // passed.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

/// Pinned (page-locked) host memory, which the device reads by DMA.
pub(super) struct Pinned(*mut u8);

impl Pinned {
    pub(super) fn new(bytes: usize) -> Result<Pinned> {
        // SAFETY: allocating has no preconditions; no flags are set.
        let start = unsafe { result::malloc_host(bytes, 0) }.map_err(failed("cuMemHostAlloc"))?;
        Ok(Pinned(start.cast()))
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.0
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated by `cuMemHostAlloc`, freed once; `Cuda` has waited for the copies that read it.
        let _ = unsafe { result::free_host(self.0.cast::<c_void>()) };
    }
}
