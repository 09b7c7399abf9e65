use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use pheye_kernels::{Error as GpuError, Gpu, Memory};

use crate::buffer::{Buffer, CpuBuffer, GpuBuffer, Line, Lines};
use crate::{Device, Error, Result};

/// Where an operation's outputs come from: buffers used before, by size, or new ones while it warms up. When the device has no
/// memory left for a new one, the idle buffers are given back to it, and it is asked once more.
///
/// Cloning shares the arena.
#[derive(Clone, Debug, Default)]
pub struct Arena(Arc<Mutex<Pool>>);

/// While this lives, GPU memory that its thread gives back to the arena goes to no other thread: work that the thread has prepared
/// but not yet queued will use it.
#[derive(Debug)]
pub struct Hold<'a> {
    arena: &'a Arena,
    thread: ThreadId,
}

/// Idle memory of a GPU, by size in lines.
type Idle = HashMap<usize, Vec<Memory>>;

/// What an [`Arena`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaStats {
    /// Buffers asked of the system; stands still once the arena is warm.
    pub allocations: u64,
    /// Bytes in use now.
    pub in_use: usize,
    /// The most bytes in use at once.
    pub peak: usize,
}

#[derive(Default)]
pub(crate) struct Pool {
    free: HashMap<usize, Vec<Lines>>,
    /// Where the memory is, when it is not the host's.
    gpu: Option<Gpu>,
    free_gpu: Idle,
    /// What threads gave back under a [`Hold`], the innermost of a thread last.
    held: Vec<(ThreadId, Idle)>,
    stats: ArenaStats,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stats.fmt(f)
    }
}

/// Sizes are rounded up to an eighth of their power of two, so that batches of similar length reuse each other's.
fn size_class(lines: usize) -> usize {
    let step = (lines.next_power_of_two() / 16).max(1);
    lines.div_ceil(step) * step
}

impl Pool {
    fn idle(&mut self, class: usize) -> Option<Lines> {
        let lines = self.free.get_mut(&class).and_then(Vec::pop)?;
        self.count(class, false);
        Some(lines)
    }

    /// The lowest address, not the latest freed: the same work then gets the same memory each time, and can be replayed.
    fn idle_gpu(&mut self, class: usize) -> Option<Memory> {
        let me = thread::current().id();
        let held = self.held.iter_mut().filter(|(thread, _)| *thread == me).map(|(_, idle)| idle);
        let mut lowest: Option<(&mut Vec<Memory>, usize)> = None;
        for list in held.chain([&mut self.free_gpu]).filter_map(|idle| idle.get_mut(&class)) {
            // What somebody has a region of may yet be read or written.
            let free = (0..list.len()).filter(|&i| !list[i].has_regions());
            let Some(i) = free.min_by_key(|&i| list[i].addr()) else { continue };
            if lowest.as_ref().is_none_or(|(other, j)| list[i].addr() < other[*j].addr()) {
                lowest = Some((list, i));
            }
        }
        let memory = lowest.map(|(list, i)| list.swap_remove(i))?;
        self.count(class, false);
        Some(memory)
    }

    /// Counts a buffer that is given out.
    fn count(&mut self, class: usize, new: bool) {
        self.stats.allocations += u64::from(new);
        self.stats.in_use += class * size_of::<Line>();
        self.stats.peak = self.stats.peak.max(self.stats.in_use);
    }

    pub(crate) fn put_gpu(&mut self, memory: Memory) {
        self.stats.in_use -= memory.bytes();
        self.keep_gpu(memory);
    }

    fn keep_gpu(&mut self, memory: Memory) {
        let me = thread::current().id();
        let held = self.held.iter_mut().rfind(|(thread, _)| *thread == me);
        let idle = held.map_or(&mut self.free_gpu, |(_, idle)| idle);
        idle.entry(memory.bytes() / size_of::<Line>()).or_default().push(memory);
    }

    pub(crate) fn put(&mut self, lines: Lines) {
        self.stats.in_use -= lines.len() * size_of::<Line>();
        self.free.entry(lines.len()).or_default().push(lines);
    }
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
    /// An arena of `device`'s memory; [`Arena::default`] is one of the host's.
    pub fn of(device: &Device) -> Arena {
        let gpu = match device {
            Device::Cpu => None,
            Device::Gpu(gpu) => Some(gpu.clone()),
        };
        Arena(Arc::new(Mutex::new(Pool { gpu, ..Pool::default() })))
    }

    /// A buffer of at least `bytes`, its contents left from earlier use (NaN in debug builds, so that a test
    /// sees an element that nobody wrote).
    ///
    /// # Errors
    /// [`Error::Gpu`] when a GPU has no memory left, [`Error::OutOfMemory`] when the host has none.
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
        let again = || {
            self.trim();
            Lines::zeroed(class)
        };
        let none = Error::OutOfMemory { bytes: class * size_of::<Line>() };
        let lines = Lines::zeroed(class).or_else(again).ok_or(none)?;
        self.lock().count(class, true);
        Ok(lines)
    }

    /// The GPU is called without the lock: it may make this thread wait for one that records, and that takes memory too.
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

    /// Gives the buffers that nobody uses back to the system, but for those under a [`Hold`].
    pub fn trim(&self) {
        let mut pool = self.lock();
        let (free, free_gpu) = (std::mem::take(&mut pool.free), std::mem::take(&mut pool.free_gpu));
        drop(pool);
        drop((free, free_gpu));
    }

    /// Keeps what this thread gives back for this thread. Meant for work that is rehearsed first and queued later.
    pub fn hold(&self) -> Hold<'_> {
        let thread = thread::current().id();
        self.lock().held.push((thread, Idle::default()));
        Hold { arena: self, thread }
    }

    /// What the arena has done so far.
    pub fn stats(&self) -> ArenaStats {
        self.lock().stats
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
