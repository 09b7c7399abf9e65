//! Runs the kernels on an NVIDIA GPU through the CUDA driver API, in the device's primary context and on one
//! stream.
//!
//! libcuda is loaded when the first GPU is opened, so the program also runs on machines without it. All
//! methods may be called from any thread: each makes the context current, and takes the lock of `queue`
//! before it uses the stream.

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
    /// The bytes of device memory.
    total: u64,
    queue: Queue,
    /// The device's memory pool (stream-ordered allocator), if it supports one.
    pool: Option<sys::CUmemoryPool>,
    // Fields are dropped in this order: all that belongs to the context before the context.
    modules: Modules,
    staging: Staging,
    /// The stream of all work.
    stream: Stream,
    /// A second stream, for what must not be captured or must run concurrently: downloads, uploads ahead of
    /// their use, allocations during a recording, and reads of kernel records.
    aside: Stream,
    /// cuBLASLt, loaded at its first use.
    #[cfg(feature = "cublaslt")]
    blas: std::sync::OnceLock<blas::Blas>,
    context: Context,
}

// SAFETY: driver handles may be used from any thread in which their context is current, and every method
// makes it current. Mutable state is behind locks (`queue`, `modules`, `staging`), and the driver's functions
// may be called concurrently.
unsafe impl Send for Cuda {}
// SAFETY: the same as for `Send`.
unsafe impl Sync for Cuda {}

/// An upload on the second stream; the event passes when it is complete.
pub(crate) struct Copied(Event);

impl Cuda {
    /// Opens the GPU of `device`, whose part after the colon is `option`: empty or an index.
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

    /// Free and total device memory, in bytes. Memory that the pool reserves but does not use counts as free.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        self.context.enter()?;
        let (free, total) = result::mem_get_info().map_err(failed("cuMemGetInfo"))?;
        let mut free = free as u64;
        if let Some(pool) = self.pool {
            let ask = |attribute| {
                let mut bytes = 0u64;
                // SAFETY: both attributes queried below are 64-bit integers, and the pool is the device's
                // default pool.
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

    /// Allocates from the pool, in stream order. `cuMemFree` would synchronize the device, which is too slow
    /// for memory that is freed in every step. Devices without a pool (some virtual GPUs) use `cuMemAlloc`.
    pub(crate) fn alloc(&self, bytes: usize) -> Result<u64> {
        let state = self.enter()?;
        let recording = state.recorder.is_some();
        if bytes as u64 > self.total {
            return Err(self.out_of_memory(bytes));
        }
        // On the captured stream the allocation would become a node of the graph, which would own the memory.
        let stream = if recording { &self.aside } else { &self.stream };
        let mut addr = self.take(bytes, stream);
        if let (Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)), Some(pool)) = (&addr, self.pool) {
            // Freed memory becomes available when the stream reaches the free, and the pool may hold it in
            // blocks of unsuitable sizes.
            if !recording {
                self.stream.wait().map_err(|error| state.failed("cuStreamSynchronize", error))?;
            }
            // SAFETY: the pool is the device's default pool. If trimming fails, the second attempt fails as
            // well.
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
        // The driver refuses an allocation of zero bytes.
        let bytes = bytes.max(1);
        match self.pool {
            // SAFETY: allocating has no preconditions; later work on the stream may use the memory.
            Some(_) => unsafe { result::malloc_async(stream.handle(), bytes) },
            // SAFETY: allocating has no preconditions.
            None => unsafe { result::malloc_sync(bytes) },
        }
    }

    fn out_of_memory(&self, wanted: usize) -> Error {
        let (free, total) = self.memory().unwrap_or((0, self.total));
        Error::OutOfMemory { wanted: wanted as u64, free, total }
    }

    /// Frees memory after the work queued so far; during a recording, when the recording ends.
    pub(crate) fn free(&self, addr: u64, _bytes: usize) {
        // The caller cannot handle an error. It either repeats one that later calls report, or leaks the
        // memory.
        if self.context.enter().is_err() {
            return;
        }
        let mut state = self.queue.lock();
        if state.recorder.is_some() { state.freed.push(addr) } else { self.give_back(addr) }
    }

    /// Frees memory. The context is current, the queue is locked, and the stream is not capturing.
    fn give_back(&self, addr: u64) {
        let _ = match self.pool {
            // SAFETY: `take` returned the address, which is freed once, by `Allocation`; the driver reuses
            // the memory after the work queued so far.
            Some(_) => unsafe { result::free_async(addr, self.stream.handle()) },
            // SAFETY: as above; after the wait no queued work uses the memory.
            None => self.stream.wait().and_then(|()| unsafe { result::free_sync(addr) }),
        };
    }

    /// Copies to the device in stream order; returns when the bytes are in pinned memory.
    pub(crate) fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        self.stage(from, to, &self.stream)
    }

    /// Copies to the device on the second stream. Work on the main stream must not use the memory before
    /// `join`.
    pub(crate) fn upload_ahead(&self, from: &[u8], to: u64) -> Result<Copied> {
        self.stage(from, to, &self.aside)?;
        let state = self.enter()?;
        let done = Event::new().and_then(|event| event.record(&self.aside).map(|()| event));
        done.map(Copied).map_err(|error| state.failed("cuEventRecord", error))
    }

    /// Makes all work queued from now on wait for an upload.
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
            // SAFETY: `Gpu::upload` checked the size of the region, which keeps the memory alive, and `part`
            // is not changed until the event `read` has passed.
            unsafe { result::memcpy_htod_async(to + offset as u64, part, stream.handle()) }
                .map_err(|error| state.failed("cuMemcpyHtoDAsync", error))?;
            read.record(stream).map_err(|error| {
                // Without the event the slot would be overwritten too early. If the wait fails too, the
                // context is broken and no copy runs.
                let _ = stream.wait();
                state.failed("cuEventRecord", error)
            })
        })
    }

    /// Copies to the host after all work queued so far; other threads may queue work meanwhile.
    pub(crate) fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        if to.is_empty() {
            return Ok(());
        }
        let state = self.enter()?;
        state.not_recording("a download within recorded work")?;
        let (queued, mark) = self.mark(&state)?;
        drop(state);
        let copied = self.aside.wait_for(&queued).and_then(|()| {
            // SAFETY: `Gpu::download` checked the size of the region, which keeps the memory alive; `to` is
            // borrowed until the wait below returns.
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
        // SAFETY: `Gpu::copy` checked the sizes and holds the regions, which keep the memory alive.
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

    /// Makes the kernels of another crate available.
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
        // The only kernel parameter is a struct passed by value. The driver copies as many bytes as the
        // kernel takes before the call returns, and needs no alignment.
        let mut arguments = [params.as_ptr().cast_mut().cast::<c_void>()];
        // These come from the kernel's record, whose fields are u32, so the casts are lossless.
        let (threads, shared) = ((spec.threads as u32, 1, 1), spec.shared as u32);
        // SAFETY: the function takes one struct of this size, as its record says. The addresses in it are of
        // live memory by the contract of `Launch`, which holds the regions.
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

    /// The time that the device takes for the work that `work` queues, measured by two events.
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

    /// Waits until no other thread records, locks the queue and makes the context current.
    fn enter(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.queue.enter();
        self.context.enter()?;
        Ok(state)
    }

    /// Records an event after the work queued so far, and returns it with the number of kernels queued.
    fn mark(&self, state: &State) -> Result<(Event, u64)> {
        let event = Event::new().map_err(|error| state.failed("cuEventCreate", error))?;
        event.record(&self.stream).map_err(|error| state.failed("cuEventRecord", error))?;
        Ok((event, state.queued.mark()))
    }

    /// Waits for the work queued so far; other threads may queue more meanwhile.
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
        // Queued work may still use the modules and read the staging ring. Errors repeat those of earlier
        // calls; if waiting fails, the context is broken and no work runs.
        let _ = self.context.enter();
        let _ = self.stream.wait();
        let _ = self.aside.wait();
        #[cfg(feature = "cublaslt")]
        if let Some(blas) = self.blas.get() {
            self.give_back(blas.workspace());
        }
        if let Some(pool) = self.pool {
            // SAFETY: the pool is the device's default pool. Trimming frees only unused memory, not that of
            // other users of the pool.
            let _ = unsafe { result::mem_pool::trim_to(pool, 0) };
        }
    }
}

impl fmt::Display for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{} ({})", self.card.index, self.card.name)
    }
}

/// The default memory pool of the device, set to keep freed memory. By default each synchronization returns
/// it to the system, and later allocations are slow.
fn pool(card: &Card) -> Result<sys::CUmemoryPool> {
    // SAFETY: the device is from `cuDeviceGet`.
    let pool = unsafe { result::device::get_mem_pool(card.device) }.map_err(failed("cuDeviceGetMemPool"))?;
    let mut keep = u64::MAX;
    let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute is a 64-bit integer.
    unsafe { result::mem_pool::set_attribute(pool, threshold, (&raw mut keep).cast()) }
        .map_err(failed("cuMemPoolSetAttribute"))?;
    Ok(pool)
}
