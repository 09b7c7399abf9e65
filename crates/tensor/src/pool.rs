//! Idle memory by size, on the host and on a GPU.

use std::collections::HashMap;
use std::thread::{self, ThreadId};

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;
use pheye_kernels::{Gpu, Memory};

/// 64 bytes, aligned to 64 bytes: a cache line, and a multiple of every SIMD vector.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

/// Zero-initialized host memory, aligned to 64 bytes.
pub(crate) enum Lines {
    Heap(Vec<Line>),
    /// An anonymous mapping, with huge pages if the system has them, for fewer page faults on first use and fewer TLB
    /// misses afterwards.
    Pages(MmapMut),
}

impl Lines {
    /// Allocations of at least this many bytes get a separate mapping.
    const PAGES: usize = 4 << 20;

    /// `None` if the system is out of memory.
    pub(crate) fn zeroed(count: usize) -> Option<Lines> {
        let bytes = count.checked_mul(size_of::<Line>())?;
        // Miri does not support `madvise`.
        if bytes >= Lines::PAGES
            && !cfg!(miri)
            && let Ok(pages) = MmapMut::map_anon(bytes)
        {
            // The advice is optional, so a failure is ignored.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            return Some(Lines::Pages(pages));
        }
        bytemuck::allocation::try_zeroed_vec(count).ok().map(Lines::Heap)
    }

    fn bytes(&self) -> usize {
        self.len() * size_of::<Line>()
    }
}

impl Default for Lines {
    fn default() -> Lines {
        Lines::Heap(Vec::new())
    }
}

impl std::ops::Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        match self {
            Lines::Heap(lines) => lines,
            Lines::Pages(pages) => bytemuck::cast_slice(pages),
        }
    }
}

impl std::ops::DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [Line] {
        match self {
            Lines::Heap(lines) => lines,
            Lines::Pages(pages) => bytemuck::cast_slice_mut(pages),
        }
    }
}

/// Bytes of host memory that may be idle above the peak of what was in use. Steps of small models stay below it
/// and allocate nothing.
const SLACK: usize = 32 << 20;

/// Counters of an [`Arena`](crate::Arena).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaStats {
    /// Buffers allocated from the system. Stops growing once the arena is warm.
    pub allocations: u64,
    /// Bytes that are in use.
    pub in_use: usize,
    /// The maximum of [`ArenaStats::in_use`] since the arena was created.
    pub peak: usize,
    /// Bytes of host memory that are idle.
    pub idle: usize,
}

/// Idle GPU memory, by size in [`Line`]s.
pub(crate) type Idle = HashMap<usize, Vec<Memory>>;

/// The idle buffers of an arena, and its counters.
#[derive(Default)]
pub(crate) struct Pool {
    pub(crate) free: HashMap<usize, Vec<Lines>>,
    /// The GPU that the memory is on; `None` for host memory.
    pub(crate) gpu: Option<Gpu>,
    pub(crate) free_gpu: Idle,
    /// Memory that threads returned under a [`Hold`](crate::arena::Hold). The innermost hold of a thread comes last.
    pub(crate) held: Vec<(ThreadId, Idle)>,
    pub(crate) stats: ArenaStats,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stats.fmt(f)
    }
}

/// Rounds a size up to a multiple of 1/16 of the next power of two, so that batches of similar length reuse
/// each other's buffers.
pub(crate) fn size_class(lines: usize) -> usize {
    let step = (lines.next_power_of_two() / 16).max(1);
    lines.div_ceil(step) * step
}

impl Pool {
    pub(crate) fn idle(&mut self, class: usize) -> Option<Lines> {
        let lines = self.free.get_mut(&class).and_then(Vec::pop)?;
        self.stats.idle -= lines.bytes();
        self.count(class, false);
        Some(lines)
    }

    /// Removes idle host memory, the largest first, until a new buffer of size `class` leaves the total at most
    /// [`SLACK`] above the peak of what is in use. Otherwise buffers that only one part of a network uses would
    /// stay idle while another part needs as much memory of other sizes.
    pub(crate) fn make_room(&mut self, class: usize) -> Vec<Lines> {
        let wanted = self.stats.in_use + class * size_of::<Line>();
        let idle = self.stats.peak.max(wanted) + SLACK - wanted;
        let mut removed = Vec::new();
        while self.stats.idle > idle {
            let lists = self.free.iter_mut().filter(|(_, list)| !list.is_empty());
            let Some(lines) = lists.max_by_key(|(class, _)| **class).and_then(|(_, list)| list.pop()) else {
                break;
            };
            self.stats.idle -= lines.bytes();
            removed.push(lines);
        }
        removed
    }

    /// Takes the free memory with the lowest address, not the one freed last: a repeated sequence of requests then gets
    /// the same addresses, as the replay of a recorded graph requires.
    pub(crate) fn idle_gpu(&mut self, class: usize) -> Option<Memory> {
        let me = thread::current().id();
        let held = self.held.iter_mut().filter(|(thread, _)| *thread == me).map(|(_, idle)| idle);
        let mut lowest: Option<(&mut Vec<Memory>, usize)> = None;
        for list in held.chain([&mut self.free_gpu]).filter_map(|idle| idle.get_mut(&class)) {
            // Memory with a live region may still be read or written.
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

    /// Counts a buffer that is handed out.
    pub(crate) fn count(&mut self, class: usize, new: bool) {
        self.stats.allocations += u64::from(new);
        self.stats.in_use += class * size_of::<Line>();
        self.stats.peak = self.stats.peak.max(self.stats.in_use);
    }

    pub(crate) fn put_gpu(&mut self, memory: Memory) {
        self.stats.in_use -= memory.bytes();
        self.keep_gpu(memory);
    }

    pub(crate) fn keep_gpu(&mut self, memory: Memory) {
        let me = thread::current().id();
        let held = self.held.iter_mut().rfind(|(thread, _)| *thread == me);
        let idle = held.map_or(&mut self.free_gpu, |(_, idle)| idle);
        idle.entry(memory.bytes() / size_of::<Line>()).or_default().push(memory);
    }

    pub(crate) fn put(&mut self, lines: Lines) {
        self.stats.in_use -= lines.bytes();
        self.stats.idle += lines.bytes();
        self.free.entry(lines.len()).or_default().push(lines);
    }
}
