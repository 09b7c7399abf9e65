use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pheye_kernels::{Gpu, Memory};

use crate::buffer::{Buffer, CpuBuffer, GpuBuffer, Line, Lines};
use crate::{Device, Result};

/// Where an operation's outputs come from: buffers used before, by size, or new ones while it warms up.
///
/// Cloning shares the arena.
#[derive(Clone, Debug, Default)]
pub struct Arena(Arc<Mutex<Pool>>);

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
    free_gpu: HashMap<usize, Vec<Memory>>,
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
    fn take(&mut self, lines: usize) -> Lines {
        let class = self.count(lines);
        self.free.get_mut(&class).and_then(Vec::pop).unwrap_or_else(|| {
            self.stats.allocations += 1;
            Lines::zeroed(class)
        })
    }

    fn count(&mut self, lines: usize) -> usize {
        let class = size_class(lines.max(1));
        self.stats.in_use += class * size_of::<Line>();
        self.stats.peak = self.stats.peak.max(self.stats.in_use);
        class
    }

    fn take_gpu(&mut self, gpu: &Gpu, lines: usize) -> Result<Memory> {
        let class = self.count(lines);
        // The lowest address, not the latest freed: the same work then gets the same memory each time, and can be replayed.
        let free = self.free_gpu.entry(class).or_default();
        if let Some(lowest) = (0..free.len()).min_by_key(|&i| free[i].all().addr) {
            return Ok(free.swap_remove(lowest));
        }
        let memory = gpu.alloc(class * size_of::<Line>()).inspect_err(|_| {
            self.stats.in_use -= class * size_of::<Line>();
        })?;
        self.stats.allocations += 1;
        Ok(memory)
    }

    pub(crate) fn put_gpu(&mut self, memory: Memory) {
        self.stats.in_use -= memory.bytes();
        self.free_gpu.entry(memory.bytes() / size_of::<Line>()).or_default().push(memory);
    }

    pub(crate) fn put(&mut self, lines: Lines) {
        self.stats.in_use -= lines.len() * size_of::<Line>();
        self.free.entry(lines.len()).or_default().push(lines);
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
    /// [`crate::Error::Gpu`] when a GPU has no memory left.
    pub fn take(&self, bytes: usize) -> Result<Arc<Buffer>> {
        let count = bytes.div_ceil(size_of::<Line>());
        let home = Arc::downgrade(&self.0);
        let mut pool = self.lock();
        if let Some(gpu) = pool.gpu.clone() {
            let memory = Some(pool.take_gpu(&gpu, count)?);
            return Ok(Arc::new(Buffer::Gpu(GpuBuffer { memory, home })));
        }
        let mut lines = pool.take(count);
        drop(pool);
        if cfg!(debug_assertions) {
            bytemuck::cast_slice_mut::<Line, u32>(&mut lines).fill(u32::MAX);
        }
        Ok(Arc::new(Buffer::Cpu(CpuBuffer { lines, home })))
    }

    /// Gives the buffers that nobody uses back to the system.
    pub fn trim(&self) {
        let mut pool = self.lock();
        pool.free.clear();
        pool.free_gpu.clear();
    }

    /// What the arena has done so far.
    pub fn stats(&self) -> ArenaStats {
        self.lock().stats
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
