//! Races on global memory that a launch updates.
//!
//! Two accesses to the same two bytes, at least one of them a write, race unless one happens before the other. Within a block,
//! barriers order them (see `shared.rs`). Between blocks only this sequence does, as for the last block of a reduction: the access, a
//! `__threadfence()` by the same thread or by one that a barrier orders after it, an atomic operation of that thread; then in the other block
//! an atomic operation on the same word, a `__threadfence()` by the same thread, and the access, by this thread or after a barrier.
//!
//! As in a vector clock (Fidge, 1988; Mattern, 1989), a fence takes a snapshot of what is ordered before it, an atomic operation leaves the
//! snapshot at its word and takes along those that other blocks left there, and the next fence makes these count.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::shared::WARPS;

/// Bytes per shadow cell, the size of the smallest element.
const GRAIN: usize = 2;
/// Shadow cells that are allocated together when one of them is needed.
const CHUNK: usize = 512;

/// An access: which thread of which block (by linear index), and when in the time of that block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Touch {
    pub block: u32,
    pub thread: u32,
    pub time: u32,
}

const TIME_BITS: u32 = 22;
const THREAD_BITS: u32 = 10;

impl Touch {
    /// The touch in one word, never 0. Times that do not fit become the largest, whose races may go unnoticed.
    fn pack(self) -> u64 {
        let time = self.time.min((1 << TIME_BITS) - 1);
        (u64::from(self.block) + 1) << 32 | u64::from(self.thread) << TIME_BITS | u64::from(time)
    }

    fn unpack(word: u64) -> Option<Touch> {
        Some(Touch {
            block: ((word >> 32) as u32).checked_sub(1)?,
            thread: word as u32 >> TIME_BITS & ((1 << THREAD_BITS) - 1),
            time: word as u32 & ((1 << TIME_BITS) - 1),
        })
    }

    fn warp(self) -> (u32, u32) {
        (self.block, self.thread / 32)
    }
}

/// The last write to two bytes, and the last reads by two different warps. At least one of these is not the next writer's warp.
#[derive(Default)]
struct Cell {
    write: AtomicU64,
    reads: [AtomicU64; 2],
}

/// An access that races with the present one.
pub(crate) struct Race {
    pub by: Touch,
    pub other: &'static str,
    /// The offset in the region.
    pub offset: usize,
}

/// The shadow of a region.
pub(crate) struct Shadow(Vec<OnceLock<Box<[Cell]>>>);

impl Shadow {
    pub(crate) fn new(bytes: usize) -> Shadow {
        Shadow((0..bytes.div_ceil(GRAIN * CHUNK)).map(|_| OnceLock::new()).collect())
    }

    fn cell(&self, i: usize) -> &Cell {
        let chunk = self.0[i / CHUNK].get_or_init(|| (0..CHUNK).map(|_| Cell::default()).collect());
        &chunk[i % CHUNK]
    }

    /// Records an access to `bytes` bytes from `offset` on. `ordered` tells whether an earlier access happens before this one.
    pub(crate) fn access(
        &self,
        offset: usize,
        bytes: usize,
        write: bool,
        now: Touch,
        ordered: impl Fn(Touch) -> bool,
    ) -> Result<(), Race> {
        // Relaxed, because a cell only has to be one that some order of the blocks leads to.
        let get = |word: &AtomicU64| Touch::unpack(word.load(Ordering::Relaxed));
        let races = |word: &AtomicU64| get(word).filter(|by| !ordered(*by));
        for i in offset / GRAIN..(offset + bytes).div_ceil(GRAIN) {
            let (cell, offset) = (self.cell(i), i * GRAIN);
            if let Some(by) = races(&cell.write) {
                return Err(Race { by, other: "write", offset });
            }
            if write {
                if let Some(by) = cell.reads.iter().find_map(races) {
                    return Err(Race { by, other: "read", offset });
                }
                cell.write.store(now.pack(), Ordering::Relaxed);
            } else {
                let first = get(&cell.reads[0]).is_none_or(|by| by.warp() == now.warp());
                cell.reads[usize::from(!first)].store(now.pack(), Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// What happened in a block before a fence: all that warp w did before time `seen[w]`, and all that thread `own.0` did up to time
/// `own.1`, for each of `own`.
#[derive(Debug, Clone, Default)]
struct Snapshot {
    seen: [u32; WARPS],
    own: HashMap<u32, u32>,
}

impl Snapshot {
    fn contains(&self, touch: Touch) -> bool {
        touch.time < self.seen[touch.thread as usize / 32]
            || self.own.get(&touch.thread).is_some_and(|&time| touch.time <= time)
    }

    fn join(&mut self, other: &Snapshot) {
        self.seen.iter_mut().zip(other.seen).for_each(|(a, b)| *a = (*a).max(b));
        for (&thread, &time) in &other.own {
            let own = self.own.entry(thread).or_default();
            *own = time.max(*own);
        }
    }
}

/// Snapshots by block.
#[derive(Debug, Clone, Default)]
struct Snapshots(HashMap<u32, Snapshot>);

impl Snapshots {
    fn join(&mut self, other: &Snapshots) {
        other.0.iter().for_each(|(&block, snapshot)| self.0.entry(block).or_default().join(snapshot));
    }
}

/// The words of global memory on which a launch did atomic operations, with the snapshots that were left there.
#[derive(Default)]
pub(crate) struct Words(Mutex<HashMap<usize, Snapshots>>);

/// What a block knows of its own fences and of other blocks.
#[derive(Default)]
pub(crate) struct Fences {
    /// By thread, what its last fence ordered: its own block's snapshot, and those of other blocks.
    released: HashMap<u32, Snapshots>,
    /// By thread, what it took along by atomic operations since its last fence.
    taken: HashMap<u32, Snapshots>,
    /// What fences made count, with the thread and the time of the fence.
    acquired: Vec<(u32, u32, Snapshots)>,
}

impl Fences {
    /// Whether an access of another block happens before the present one. `before` tells whether what a thread of this block did at a time
    /// is ordered before it.
    pub(crate) fn ordered(&self, by: Touch, before: impl Fn(u32, u32) -> bool) -> bool {
        self.acquired.iter().any(|(thread, time, known)| {
            before(*thread, *time) && known.0.get(&by.block).is_some_and(|snapshot| snapshot.contains(by))
        })
    }

    /// A `__threadfence()` at `now`. `seen[w]` is the time before which all that warp w did is ordered before it.
    pub(crate) fn fence(&mut self, now: Touch, seen: [u32; WARPS]) {
        if let Some(taken) = self.taken.remove(&now.thread) {
            self.acquired.push((now.thread, now.time, taken));
        }
        let before = |thread: u32, time: u32| thread == now.thread || time < seen[thread as usize / 32];
        let mut all = Snapshots::default();
        for (_, _, known) in self.acquired.iter().filter(|(thread, time, _)| before(*thread, *time)) {
            all.join(known);
        }
        let own = Snapshot { seen, own: HashMap::from([(now.thread, now.time)]) };
        all.0.entry(now.block).or_default().join(&own);
        self.released.insert(now.thread, all);
    }

    /// An atomic operation of a thread on the word at `addr`, which `operation` does.
    pub(crate) fn atomic<R>(
        &mut self,
        words: &Words,
        addr: usize,
        thread: u32,
        operation: impl FnOnce() -> R,
    ) -> R {
        // Held during the operation, so that the snapshots meet in the order of the operations.
        let mut words = words.0.lock().unwrap_or_else(PoisonError::into_inner);
        let word = words.entry(addr).or_default();
        self.taken.entry(thread).or_default().join(word);
        if let Some(released) = self.released.get(&thread) {
            word.join(released);
        }
        operation()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: fn(Touch) -> bool = |_| false;

    fn touch(block: u32, thread: u32, time: u32) -> Touch {
        Touch { block, thread, time }
    }

    #[test]
    fn a_touch_fits_into_a_word() {
        for t in [touch(0, 0, 0), touch(u32::MAX - 1, 1023, (1 << 22) - 1), touch(7, 31, 1000)] {
            assert_eq!(Touch::unpack(t.pack()), Some(t));
        }
        assert_eq!(Touch::unpack(0), None);
        assert_eq!(Touch::unpack(touch(3, 2, u32::MAX).pack()).map(|t| (t.block, t.thread)), Some((3, 2)));
    }

    #[test]
    fn reads_do_not_race_and_writes_do() {
        let shadow = Shadow::new(64);
        for block in 0..3 {
            assert!(shadow.access(8, 4, false, touch(block, 0, 0), NEVER).is_ok());
        }
        // The second of the two readers that are kept is the last one.
        let race = shadow.access(8, 4, true, touch(0, 0, 0), |by| by.block == 0).err().unwrap();
        assert_eq!((race.by.block, race.other, race.offset), (2, "read", 8));
        assert!(shadow.access(12, 4, true, touch(0, 0, 0), NEVER).is_ok());
        let race = shadow.access(14, 2, false, touch(0, 1, 0), NEVER).err().unwrap();
        assert_eq!((race.by, race.other, race.offset), (touch(0, 0, 0), "write", 14));
        assert!(shadow.access(62, 2, true, touch(0, 0, 0), NEVER).is_ok());
    }

    #[test]
    fn fences_and_an_atomic_order_two_blocks() {
        let seen = |time| [time; WARPS];
        let words = Words::default();
        let (mut first, mut last) = (Fences::default(), Fences::default());
        // Without a fence nothing is left at the word.
        first.atomic(&words, 64, 0, || ());
        assert!(words.0.lock().unwrap()[&64].0.is_empty());
        first.fence(touch(0, 0, 5), seen(3));
        first.atomic(&words, 64, 0, || ());
        last.atomic(&words, 64, 40, || ());
        let ordered = |fences: &Fences, by, thread: u32| fences.ordered(by, |t, _| t == thread);
        assert!(!ordered(&last, touch(0, 0, 5), 40), "the second fence is missing");
        last.fence(touch(1, 40, 2), seen(0));
        // What thread 0 did up to the fence, and other threads before the barrier at time 3.
        assert!(ordered(&last, touch(0, 0, 5), 40) && ordered(&last, touch(0, 9, 2), 40));
        assert!(!ordered(&last, touch(0, 9, 3), 40) && !ordered(&last, touch(0, 0, 6), 40));
        // Thread 41 is not ordered after the fence of thread 40, and block 2 left nothing.
        assert!(!ordered(&last, touch(0, 0, 5), 41) && !ordered(&last, touch(2, 0, 0), 40));
        // A third block learns of the first through the second.
        last.atomic(&words, 128, 40, || ());
        let mut third = Fences::default();
        third.atomic(&words, 128, 0, || ());
        third.fence(touch(2, 0, 0), seen(0));
        assert!(ordered(&third, touch(0, 0, 5), 0) && ordered(&third, touch(1, 40, 2), 0));
    }
}
