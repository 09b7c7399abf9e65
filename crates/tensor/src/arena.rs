//! Reuse of memory: an [`Arena`] keeps the buffers of dropped tensors by size and hands them out again, so that a
//! training step allocates nothing from the system after the first step.

use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use pheye_kernels::{Error as GpuError, Gpu, Memory};

use crate::buffer::{Buffer, CpuBuffer, GpuBuffer};
use crate::pool::{ArenaStats, Idle, Line, Lines, Pool, size_class};
use crate::{Device, Error, Result};

/// A caching allocator, which provides the outputs of operations. It hands out idle buffers of the requested size and
/// allocates new ones only while it warms up, and, on the host, where parts of a network with buffers of different
/// sizes take turns and the idle ones exceed 32 MiB. If the device is out of memory, the arena frees its idle buffers
/// and tries once more.
///
/// Cloning shares the arena.
#[derive(Clone, Debug, Default)]
pub struct Arena(Arc<Mutex<Pool>>);

/// While a `Hold` exists, GPU memory that its thread returns to the arena is handed to no other thread, because work
/// that the thread has prepared but not yet queued still refers to that memory.
#[derive(Debug)]
pub struct Hold<'a> {
    arena: &'a Arena,
    thread: ThreadId,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut pool = self.arena.lock();
        let Some(mine) = pool.held.iter().rposition(|(thread, _)| *thread == self.thread) else { return };
        let (_, idle) = pool.held.remove(mine);
        idle.into_values().flatten().for_each(|memory| pool.keep_gpu(memory));
    }
}

impl Arena {
    /// An arena in the memory of `device`. [`Arena::default`] is an arena of host memory.
    pub fn of(device: &Device) -> Arena {
        let gpu = match device {
            Device::Cpu => None,
            Device::Gpu(gpu) => Some(gpu.clone()),
        };
        Arena(Arc::new(Mutex::new(Pool { gpu, ..Pool::default() })))
    }

    /// A buffer of at least `bytes` bytes with unspecified contents. In debug builds host memory is filled with NaN, so
    /// that tests notice elements that were never written.
    ///
    /// # Errors
    /// [`Error::Gpu`] when a GPU is out of memory, [`Error::OutOfMemory`] when the host is.
    pub fn take(&self, bytes: usize) -> Result<Arc<Buffer>> {
        if bytes > isize::MAX as usize / 2 {
            return Err(Error::OutOfMemory { bytes });
        }
        let class = size_class(bytes.div_ceil(size_of::<Line>()).max(1));
        let home = Arc::downgrade(&self.0);
        let gpu = self.lock().gpu.clone();
        if let Some(gpu) = gpu {
            let memory = Some(self.take_gpu(&gpu, class)?);
            return Ok(Arc::new(Buffer::Gpu(GpuBuffer { memory, home })));
        }
        let mut lines = self.take_cpu(class)?;
        if cfg!(debug_assertions) {
            bytemuck::cast_slice_mut::<Line, u32>(&mut lines).fill(u32::MAX);
        }
        Ok(Arc::new(Buffer::Cpu(CpuBuffer { lines, home })))
    }

    fn take_cpu(&self, class: usize) -> Result<Lines> {
        if let Some(lines) = self.lock().idle(class) {
            return Ok(lines);
        }
        // Outside of the lock, because unmapping takes time.
        let room = self.lock().make_room(class);
        drop(room);
        let again = || {
            self.trim();
            Lines::zeroed(class)
        };
        let none = Error::OutOfMemory { bytes: class * size_of::<Line>() };
        let lines = Lines::zeroed(class).or_else(again).ok_or(none)?;
        self.lock().count(class, true);
        Ok(lines)
    }

    /// Calls the GPU without holding the lock: the call may wait for another thread that records a graph, and that
    /// thread also takes memory from this arena.
    fn take_gpu(&self, gpu: &Gpu, class: usize) -> Result<Memory> {
        if let Some(memory) = self.lock().idle_gpu(class) {
            return Ok(memory);
        }
        let new = || gpu.alloc(class * size_of::<Line>());
        let memory = new().or_else(|error| match error {
            GpuError::OutOfMemory { .. } => {
                self.trim();
                new()
            }
            other => Err(other),
        })?;
        self.lock().count(class, true);
        Ok(memory)
    }

    /// Frees all idle buffers, except those under a [`Hold`].
    pub fn trim(&self) {
        let mut pool = self.lock();
        let (free, free_gpu) = (std::mem::take(&mut pool.free), std::mem::take(&mut pool.free_gpu));
        pool.stats.idle = 0;
        drop(pool);
        drop((free, free_gpu));
    }

    /// Reserves the GPU memory that this thread returns for this thread until the [`Hold`] is dropped. Meant for work
    /// that runs dry first and is queued later.
    pub fn hold(&self) -> Hold<'_> {
        let thread = thread::current().id();
        self.lock().held.push((thread, Idle::default()));
        Hold { arena: self, thread }
    }

    /// The counters of the arena.
    pub fn stats(&self) -> ArenaStats {
        self.lock().stats
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
