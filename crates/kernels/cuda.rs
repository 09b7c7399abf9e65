//! The kernels on an NVIDIA GPU, through the driver alone: one primary context, one stream that all work is queued on.
//!
//! libcuda is loaded when the first GPU is opened; a program without it runs as before. All methods may be called from any
//! thread: each makes the context current, and goes through the gate in `queue` before it touches the stream.

#[cfg(feature = "cublaslt")]
mod blas;
mod card;
mod driver;
mod file;
mod modules;
mod queue;
mod recording;
mod staging;

use std::ffi::c_void;
use std::fmt;
use std::sync::MutexGuard;
use std::time::Duration;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUmemPool_attribute, CUresult};

use crate::{Error, KernelSet, Launch, Result, Spec};
use card::Card;
use driver::{Called, Context, Event, Stream, failed};
use modules::{Kernel, Modules};
use queue::{Queue, State};
pub(crate) use recording::Recording;
use staging::Staging;

/// An NVIDIA GPU.
pub(crate) struct Cuda {
    card: Card,
    /// Bytes of its memory.
    total: u64,
    queue: Queue,
    /// The device's pool of memory, if it has one.
    pool: Option<sys::CUmemoryPool>,
    // Dropped from here on in this order: what is of the context before the context.
    modules: Modules,
    staging: Staging,
    /// All work.
    stream: Stream,
    /// What must not be recorded with it: downloads, and records of kernels.
    aside: Stream,
    /// cuBLASLt, once it was asked for.
    #[cfg(feature = "cublaslt")]
    blas: std::sync::OnceLock<blas::Blas>,
    context: Context,
}

// SAFETY: the driver's handles may be used from any thread in which their context is current; all methods see to that. What
// changes is behind locks (`queue`, `modules`, `staging`), and the driver's functions are safe to call at the same time.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

/// A copy beside the queued work: passed when it is done.
pub(crate) struct Copied(Event);

impl Cuda {
    /// Opens the card that `device` names by `option`, its part after the colon: nothing or a number.
    pub(crate) fn open(device: &str, option: &str) -> Result<Cuda> {
        let card = Card::find(device, option)?;
        let context = Context::retain(card.device)?;
        let modules = Modules::new(device, &card)?;
        let (_, total) = result::mem_get_info().map_err(failed("cuMemGetInfo"))?;
        let each = std::env::var_os("PHEYE_SYNC").is_some_and(|value| !value.is_empty() && value != "0");
        Ok(Cuda {
            total: total as u64,
            queue: Queue::new(each),
            pool: if card.pools { Some(pool(&card)?) } else { None },
            modules,
            staging: Staging::new()?,
            stream: Stream::new()?,
            aside: Stream::new()?,
            #[cfg(feature = "cublaslt")]
            blas: std::sync::OnceLock::new(),
            context,
            card,
        })
    }

    pub(crate) fn sms(&self) -> usize {
        self.card.sms
    }

    /// Bytes free and in all. What the pool holds in reserve is free.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        self.context.enter()?;
        let (free, total) = result::mem_get_info().map_err(failed("cuMemGetInfo"))?;
        let mut free = free as u64;
        if let Some(pool) = self.pool {
            let ask = |attribute| {
                let mut bytes = 0u64;
                // SAFETY: both attributes asked for below are of 64 bits; the pool is the device's own.
                unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) }
                    .map_err(failed("cuMemPoolGetAttribute"))
                    .map(|()| bytes)
            };
            let held = ask(CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
            let used = ask(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
            free += held.saturating_sub(used);
        }
        Ok((free, total as u64))
    }

    /// Memory from the pool, in the order of the stream: `cuMemFree` would wait for the whole device, which tensors that come
    /// and go cannot afford. Without a pool (on some virtual GPUs) from `cuMemAlloc`.
    pub(crate) fn alloc(&self, bytes: usize) -> Result<u64> {
        let state = self.enter()?;
        let recording = state.recorder.is_some();
        if bytes as u64 > self.total {
            return Err(self.out_of_memory(bytes));
        }
        // Captured, it would be memory of the graph, and gone with it.
        let stream = if recording { &self.aside } else { &self.stream };
        let mut addr = self.take(bytes, stream);
        if let (Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)), Some(pool)) = (&addr, self.pool) {
            // What was freed counts once the stream is past it, and may lie in pieces of the wrong size.
            if !recording {
                self.stream.wait().map_err(|error| state.failed("cuStreamSynchronize", error))?;
            }
            // SAFETY: the pool is the device's own. What this cannot give back, the second try does not find.
            let _ = unsafe { result::mem_pool::trim_to(pool, 0) };
            addr = self.take(bytes, stream);
        }
        if recording {
            self.aside.wait().map_err(|error| state.failed("cuStreamSynchronize", error))?;
        }
        addr.map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => self.out_of_memory(bytes),
            _ => state.failed("cuMemAlloc", error),
        })
    }

    fn take(&self, bytes: usize, stream: &Stream) -> Called<u64> {
        // The driver refuses an allocation of nothing.
        let bytes = bytes.max(1);
        match self.pool {
            // SAFETY: a fresh allocation, ready for whatever is queued on the stream after it.
            Some(_) => unsafe { result::malloc_async(stream.handle(), bytes) },
            // SAFETY: a fresh allocation.
            None => unsafe { result::malloc_sync(bytes) },
        }
    }

    fn out_of_memory(&self, wanted: usize) -> Error {
        let (free, total) = self.memory().unwrap_or((0, self.total));
        Error::OutOfMemory { wanted: wanted as u64, free, total }
    }

    /// Gives memory back once the work queued so far is done with it.
    pub(crate) fn free(&self, addr: u64, _bytes: usize) {
        // Nobody is left to act on a failure here; it repeats one that later calls report, or costs memory.
        if self.context.enter().is_err() {
            return;
        }
        let mut state = self.queue.lock();
        if state.recorder.is_some() { state.freed.push(addr) } else { self.give_back(addr) }
    }

    /// Of `free`: the context is current, the gate held, and the stream not recording.
    fn give_back(&self, addr: u64) {
        let _ = match self.pool {
            // SAFETY: the address is from `take` and given back once, by `Memory`; earlier work is done before it is reused.
            Some(_) => unsafe { result::free_async(addr, self.stream.handle()) },
            // SAFETY: as above; after the wait nothing queued uses it.
            None => self.stream.wait().and_then(|()| unsafe { result::free_sync(addr) }),
        };
    }

    /// Copies to the device in the order of the stream; the host goes on once the bytes are in pinned memory.
    pub(crate) fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        self.stage(from, to, &self.stream)
    }

    /// Copies to the device on the stream beside the one of all work, which must not use the memory meanwhile.
    pub(crate) fn upload_ahead(&self, from: &[u8], to: u64) -> Result<Copied> {
        self.stage(from, to, &self.aside)?;
        let state = self.enter()?;
        let done = Event::new().and_then(|event| event.record(&self.aside).map(|()| event));
        done.map(Copied).map_err(|error| state.failed("cuEventRecord", error))
    }

    /// Lets work queued from now on wait for a copy.
    pub(crate) fn join(&self, copied: &Copied) -> Result<()> {
        let state = self.enter()?;
        state.not_recording("waiting for a copy within recorded work")?;
        self.stream.wait_for(&copied.0).map_err(|error| state.failed("cuStreamWaitEvent", error))
    }

    fn stage(&self, from: &[u8], to: u64, stream: &Stream) -> Result<()> {
        self.enter()?.not_recording("an upload within recorded work")?;
        let late = |error| self.queue.lock().failed("cuEventSynchronize", error);
        self.staging.each(from, late, |part, offset, read| {
            let state = self.enter()?;
            // SAFETY: `Gpu::upload` checked the region's size, the region keeps the memory alive, and `part` stays as it is
            // until `read` has passed.
            unsafe { result::memcpy_htod_async(to + offset as u64, part, stream.handle()) }
                .map_err(|error| state.failed("cuMemcpyHtoDAsync", error))?;
            read.record(stream).map_err(|error| {
                // Without the event the slot would be written again too early. A failed wait means that nothing runs.
                let _ = stream.wait();
                state.failed("cuEventRecord", error)
            })
        })
    }

    /// Copies to the host, after all that was queued; other threads may queue work meanwhile.
    pub(crate) fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        if to.is_empty() {
            return Ok(());
        }
        let state = self.enter()?;
        state.not_recording("a download within recorded work")?;
        let (queued, mark) = self.mark(&state)?;
        drop(state);
        let copied = self.aside.wait_for(&queued).and_then(|()| {
            // SAFETY: `Gpu::download` checked the region's size, and the region keeps the memory alive; `to` is ours until the
            // wait below is over.
            unsafe { result::memcpy_dtoh_async(to, from, self.aside.handle()) }?;
            self.aside.wait()
        });
        let mut state = self.queue.lock();
        copied.map_err(|error| state.failed("a download", error))?;
        state.queued.settle(mark);
        Ok(())
    }

    pub(crate) fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let state = self.enter()?;
        // SAFETY: `Gpu::copy` checked the sizes, and the region keeps the memory alive.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.handle()) }
            .map_err(|error| state.failed("cuMemcpyDtoDAsync", error))
    }

    pub(crate) fn clear(&self, addr: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let state = self.enter()?;
        // SAFETY: `Gpu::clear` holds the region, which keeps the memory alive.
        unsafe { result::memset_d8_async(addr, 0, bytes, self.stream.handle()) }
            .map_err(|error| state.failed("cuMemsetD8Async", error))
    }

    /// Makes the kernels of another crate launchable.
    pub(crate) fn load(&self, kernels: &'static KernelSet) -> Result<()> {
        self.context.enter()?;
        self.modules.load(&format!("cuda:{}", self.card.index), kernels)
    }

    fn kernel(&self, name: &'static str) -> Result<Kernel> {
        if let Some(kernel) = self.modules.known(name) {
            return Ok(kernel);
        }
        self.context.enter()?;
        self.modules.find(name, &self.aside)
    }

    pub(crate) fn spec(&self, kernel: &'static str) -> Result<Spec> {
        self.kernel(kernel).map(|kernel| kernel.spec)
    }

    pub(crate) fn run(&self, launch: &Launch, grid: [u32; 3], params: &[u8]) -> Result<()> {
        let Kernel { function, spec } = self.kernel(launch.kernel)?;
        if params.len() != spec.params {
            let (expected, found) = (spec.params, params.len());
            return Err(Error::Params { kernel: launch.kernel, expected, found });
        }
        let mut state = self.enter()?;
        // The one parameter, a struct by value. The driver reads as many bytes as the kernel takes, whatever their alignment,
        // and before the call returns.
        let mut arguments = [params.as_ptr().cast_mut().cast::<c_void>()];
        // From the kernel's own record, whose fields are u32.
        let (threads, shared) = ((spec.threads as u32, 1, 1), spec.shared as u32);
        // SAFETY: the function takes one struct of this size, as its record says; that the addresses in it are of
        // memory that is alive is the contract of `Launch`, whose regions hold that memory.
        unsafe {
            result::launch_kernel(
                function,
                grid.into(),
                threads,
                shared,
                self.stream.handle(),
                &mut arguments,
            )
        }
        .map_err(|error| state.failed("cuLaunchKernel", error))?;
        state.push(launch.kernel);
        if state.each && state.recorder.is_none() { self.settle(state, "a launch") } else { Ok(()) }
    }

    /// Waits for all queued work.
    pub(crate) fn synchronize(&self) -> Result<()> {
        let state = self.enter()?;
        state.not_recording("a synchronization within recorded work")?;
        self.settle(state, "a synchronization")
    }

    /// How long the device takes for what `work` queues.
    pub(crate) fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let point = || {
            let state = self.enter()?;
            state.not_recording("a timing within recorded work")?;
            let event = Event::timing().map_err(|error| state.failed("cuEventCreate", error))?;
            event.record(&self.stream).map_err(|error| state.failed("cuEventRecord", error))?;
            Ok(event)
        };
        let before: Event = point()?;
        work()?;
        let after: Event = point()?;
        self.synchronize()?;
        let milliseconds = before.elapsed(&after).map_err(failed("cuEventElapsedTime"))?;
        Duration::try_from_secs_f64(f64::from(milliseconds) / 1e3)
            .map_err(|error| Error::Driver { call: "cuEventElapsedTime", cause: error.to_string() })
    }

    /// Makes the context current and goes through the gate.
    fn enter(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.queue.enter();
        self.context.enter()?;
        Ok(state)
    }

    /// The end of what is queued now.
    fn mark(&self, state: &State) -> Result<(Event, u64)> {
        let event = Event::new().map_err(|error| state.failed("cuEventCreate", error))?;
        event.record(&self.stream).map_err(|error| state.failed("cuEventRecord", error))?;
        Ok((event, state.queued.mark()))
    }

    /// Waits for what is queued now, and lets other threads queue meanwhile.
    fn settle(&self, state: MutexGuard<'_, State>, call: &'static str) -> Result<()> {
        let (event, mark) = self.mark(&state)?;
        drop(state);
        let passed = event.wait();
        let mut state = self.queue.lock();
        passed.map_err(|error| state.failed(call, error))?;
        state.queued.settle(mark);
        Ok(())
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Work may still use the modules and read the ring. Failures repeat what earlier calls reported; if nothing can be
        // waited for, nothing runs.
        let _ = self.context.enter();
        let _ = self.stream.wait();
        let _ = self.aside.wait();
        #[cfg(feature = "cublaslt")]
        if let Some(blas) = self.blas.get() {
            self.give_back(blas.workspace());
        }
        if let Some(pool) = self.pool {
            // SAFETY: the pool is the device's own; what others have of it stays theirs.
            let _ = unsafe { result::mem_pool::trim_to(pool, 0) };
        }
    }
}

impl fmt::Display for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{} ({})", self.card.index, self.card.name)
    }
}

/// The pool of the card's memory, told to keep what is given back to it: else every synchronization would return it to the
/// system, to be asked for again.
fn pool(card: &Card) -> Result<sys::CUmemoryPool> {
    // SAFETY: the device is from `cuDeviceGet`.
    let pool = unsafe { result::device::get_mem_pool(card.device) }.map_err(failed("cuDeviceGetMemPool"))?;
    let mut keep = u64::MAX;
    let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute is of 64 bits.
    unsafe { result::mem_pool::set_attribute(pool, threshold, (&raw mut keep).cast()) }
        .map_err(failed("cuMemPoolSetAttribute"))?;
    Ok(pool)
}
