use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::buffer::{Buffer, CpuBuffer, Line};

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
    free: HashMap<usize, Vec<Vec<Line>>>,
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
    fn take(&mut self, lines: usize) -> Vec<Line> {
        let class = size_class(lines.max(1));
        self.stats.in_use += class * size_of::<Line>();
        self.stats.peak = self.stats.peak.max(self.stats.in_use);
        self.free.get_mut(&class).and_then(Vec::pop).unwrap_or_else(|| {
            self.stats.allocations += 1;
            bytemuck::zeroed_vec(class)
        })
    }

    pub(crate) fn put(&mut self, lines: Vec<Line>) {
        self.stats.in_use -= lines.len() * size_of::<Line>();
        self.free.entry(lines.len()).or_default().push(lines);
    }
}

impl Arena {
    /// A buffer of at least `bytes`, its contents left from earlier use (NaN in debug builds, so that a test
    /// sees an element that nobody wrote).
    pub fn take(&self, bytes: usize) -> Arc<Buffer> {
        let mut lines = self.lock().take(bytes.div_ceil(size_of::<Line>()));
        if cfg!(debug_assertions) {
            bytemuck::cast_slice_mut::<Line, u32>(&mut lines).fill(u32::MAX);
        }
        Arc::new(Buffer::Cpu(CpuBuffer { lines, home: Arc::downgrade(&self.0) }))
    }

    /// Gives the buffers that nobody uses back to the system.
    pub fn trim(&self) {
        self.lock().free.clear();
    }

    /// What the arena has done so far.
    pub fn stats(&self) -> ArenaStats {
        self.lock().stats
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
