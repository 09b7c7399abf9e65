//! The shared memory of a block, with shadow cells that record which thread last wrote and read each two
//! bytes, and when.
//!
//! Time is a counter that every barrier advances. Everything that warp v did before time `seen[w][v]` is
//! ordered before what warp w does now (a vector clock with one entry per warp; Fidge, 1988, and Mattern,
//! 1989). Two accesses by different warps race unless the time of the earlier one is below that value. Within
//! a warp, `seen[w][w]` is the time of its last `__syncwarp`.

use crate::Kind;
use crate::global::inside;

/// Bytes per shadow cell.
const GRAIN: usize = 2;
/// The most warps of a block.
pub(crate) const WARPS: usize = 32;

/// An access. `thread` is the thread's index + 1, or 0 for no access.
#[derive(Clone, Copy, Default)]
struct Touch {
    time: u32,
    thread: u32,
    /// Whether other lanes of the same warp made the same access since the last `__syncwarp`.
    many: bool,
}

/// The accesses to one shadow cell. `reads` has at most one reader per warp. If two warps have read the cell,
/// at least one of them is not the warp of the next writer.
#[derive(Clone, Copy, Default)]
struct Cell {
    write: Touch,
    reads: [Touch; 2],
    /// The cp.async that has not filled this cell yet, valid if its time is not before `start`.
    flight: Touch,
}

#[derive(Default)]
pub(crate) struct Shared {
    memory: Vec<u128>,
    size: usize,
    cells: Vec<Cell>,
    /// The time at which this block started. Accesses with an earlier time are of other blocks.
    start: u32,
    now: u32,
    seen: Vec<[u32; WARPS]>,
}

impl Shared {
    /// Prepares for a block: fills the memory with NaN and marks it as unwritten and not accessed.
    pub(crate) fn reset(&mut self, size: usize) {
        let words = size.div_ceil(16) + 8;
        if self.memory.len() < words {
            self.memory.resize(words, 0);
        }
        self.memory[..words].fill(u128::MAX);
        self.size = size;
        if self.cells.len() < size.div_ceil(GRAIN) {
            self.cells.resize(size.div_ceil(GRAIN), Cell::default());
        }
        if self.now > u32::MAX / 2 {
            self.cells.fill(Cell::default());
            self.now = 0;
        }
        self.now += 1;
        self.start = self.now;
        self.seen.clear();
        self.seen.resize(WARPS, [self.start; WARPS]);
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The start of the memory, aligned to 128 bytes.
    pub(crate) fn base(&mut self) -> *mut u8 {
        let start = self.memory.as_mut_ptr().cast::<u8>();
        start.wrapping_add(start.align_offset(128))
    }

    /// The offset of `addr`, if it is in this memory or just outside of it.
    pub(crate) fn offset(&mut self, addr: usize) -> Option<isize> {
        let base = self.base() as usize;
        let margin = 1 << 16;
        let offset = addr.wrapping_sub(base) as isize;
        (-margin..self.size as isize + margin).contains(&offset).then_some(offset)
    }

    fn ordered(&self, by: Touch, thread: usize) -> bool {
        let by_thread = by.thread as usize - 1;
        (by_thread == thread && !by.many) || by.time < self.seen[thread / 32][by_thread / 32]
    }

    /// The time since the block started.
    pub(crate) fn time(&self) -> u32 {
        self.now - self.start
    }

    /// For each warp, the time since the block started before which all that it did is ordered before what `thread` does.
    pub(crate) fn seen(&self, thread: usize) -> [u32; WARPS] {
        self.seen[thread / 32].map(|time| time - self.start)
    }

    /// Whether what `by` did at `time` since the block started is ordered before what `thread` does.
    pub(crate) fn before(&self, thread: usize, by: u32, time: u32) -> bool {
        by as usize == thread || self.start + time < self.seen[thread / 32][by as usize / 32]
    }

    fn touch(&self, thread: usize) -> Touch {
        Touch { time: self.now, thread: thread as u32 + 1, many: false }
    }

    fn live(&self, touch: Touch) -> bool {
        touch.thread != 0 && touch.time >= self.start
    }

    fn cells(&self, offset: isize, bytes: usize, what: &'static str) -> Result<std::ops::Range<usize>, Kind> {
        match usize::try_from(offset) {
            Ok(start) if inside(start, bytes, 0, self.size) => {
                Ok(start / GRAIN..(start + bytes).div_ceil(GRAIN))
            }
            _ => Err(Kind::SharedOutOfBounds { what, offset, bytes, size: self.size }),
        }
    }

    pub(crate) fn read(&mut self, offset: isize, bytes: usize, thread: usize) -> Result<(), Kind> {
        let synced = self.seen[thread / 32][thread / 32];
        for i in self.cells(offset, bytes, "read")? {
            let cell = self.cells[i];
            let offset = i * GRAIN;
            if self.live(cell.flight) {
                return Err(Kind::InFlight { what: "read", offset, by: cell.flight.thread - 1 });
            }
            if !self.live(cell.write) {
                return Err(Kind::Unwritten { offset });
            }
            if !self.ordered(cell.write, thread) {
                let by = cell.write.thread - 1;
                return Err(Kind::Race { what: "read", other: "write", offset, by });
            }
            // One slot per warp, so that the two slots hold readers of different warps.
            let mut now = self.touch(thread);
            let same = |t: &Touch| self.live(*t) && (t.thread as usize - 1) / 32 == thread / 32;
            let slot = match cell.reads.iter().position(same) {
                Some(slot) => {
                    let before = cell.reads[slot];
                    now.many = before.time >= synced && (before.many || before.thread != now.thread);
                    slot
                }
                None => usize::from(cell.reads[0].time > cell.reads[1].time),
            };
            self.cells[i].reads[slot] = now;
        }
        Ok(())
    }

    fn check_write(&self, i: usize, thread: usize) -> Result<(), Kind> {
        let cell = self.cells[i];
        let offset = i * GRAIN;
        if self.live(cell.flight) {
            return Err(Kind::InFlight { what: "write", offset, by: cell.flight.thread - 1 });
        }
        for (touch, other) in [(cell.write, "write"), (cell.reads[0], "read"), (cell.reads[1], "read")] {
            if self.live(touch) && !self.ordered(touch, thread) {
                return Err(Kind::Race { what: "write", other, offset, by: touch.thread - 1 });
            }
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, offset: isize, bytes: usize, thread: usize) -> Result<(), Kind> {
        for i in self.cells(offset, bytes, "write")? {
            self.check_write(i, thread)?;
            self.cells[i].write = self.touch(thread);
        }
        Ok(())
    }

    /// Checks an atomic operation. Atomics on the same word do not race with each other.
    pub(crate) fn atomic(&mut self, offset: isize, thread: usize) -> Result<(), Kind> {
        for i in self.cells(offset, 4, "atomic")? {
            if !self.live(self.cells[i].write) {
                return Err(Kind::Unwritten { offset: i * GRAIN });
            }
            self.cells[i].write = self.touch(thread);
        }
        Ok(())
    }

    /// Records that a cp.async to these bytes was issued.
    pub(crate) fn depart(&mut self, offset: isize, bytes: usize, thread: usize) -> Result<(), Kind> {
        for i in self.cells(offset, bytes, "cp.async")? {
            self.check_write(i, thread)?;
            self.cells[i].flight = self.touch(thread);
        }
        Ok(())
    }

    /// Records that the cp.async was performed.
    pub(crate) fn land(&mut self, offset: isize, bytes: usize, thread: usize) {
        let cells = offset as usize / GRAIN..(offset as usize + bytes).div_ceil(GRAIN);
        let now = self.touch(thread);
        for cell in &mut self.cells[cells] {
            cell.flight = Touch::default();
            cell.write = now;
        }
    }

    /// Records that all warps met at `__syncthreads`.
    pub(crate) fn meet_all(&mut self) {
        self.now += 1;
        self.seen.fill([self.now; WARPS]);
    }

    /// Records that these warps met at a named barrier.
    pub(crate) fn meet(&mut self, warps: &[usize]) {
        self.now += 1;
        let mut joined = [0; WARPS];
        for &w in warps {
            joined.iter_mut().zip(self.seen[w]).for_each(|(j, s)| *j = (*j).max(s));
        }
        warps.iter().for_each(|&w| joined[w] = self.now);
        warps.iter().for_each(|&w| self.seen[w] = joined);
    }

    /// Records that the lanes of `warp` met at `__syncwarp`.
    pub(crate) fn meet_warp(&mut self, warp: usize) {
        self.now += 1;
        self.seen[warp][warp] = self.now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        let mut shared = Shared::default();
        shared.reset(256);
        shared
    }

    /// One thread in each of three warps.
    const A: usize = 0;
    const B: usize = 32;
    const C: usize = 64;

    #[test]
    fn a_block_finds_its_memory_unwritten_and_aligned() {
        let mut shared = shared();
        let base = shared.base();
        assert_eq!(base as usize % 128, 0);
        // SAFETY: the block has 256 bytes from the base on.
        let bytes = unsafe { std::slice::from_raw_parts_mut(base, 256) };
        assert!(bytes.iter().all(|&b| b == 0xff));
        bytes.fill(1);
        assert_eq!(shared.read(0, 4, A), Err(Kind::Unwritten { offset: 0 }));
        shared.write(0, 4, A).unwrap();
        shared.read(0, 4, A).unwrap();
        // The memory of the next block is unwritten again.
        shared.reset(256);
        assert_eq!(shared.read(0, 4, A), Err(Kind::Unwritten { offset: 0 }));
    }

    #[test]
    fn no_access_wraps_into_the_memory() {
        let mut shared = shared();
        let base = shared.base() as usize;
        assert_eq!(shared.offset(base + 255), Some(255));
        assert_eq!(shared.offset(base - 4), Some(-4));
        assert_eq!((shared.offset(0), shared.offset(usize::MAX)), (None, None));
        for (offset, bytes) in [(-4, 4), (-4, 8), (256, 1), (253, 4), (4, usize::MAX - 1), (isize::MIN, 16)] {
            let outcome = shared.write(offset, bytes, A);
            assert!(matches!(outcome, Err(Kind::SharedOutOfBounds { .. })), "{offset} {bytes}: {outcome:?}");
        }
    }

    #[test]
    fn warps_race_until_a_barrier() {
        let race = |what, other| Err(Kind::Race { what, other, offset: 0, by: 0 });
        let mut shared = shared();
        shared.write(0, 2, A).unwrap();
        assert_eq!(shared.read(0, 2, B), race("read", "write"));
        assert_eq!(shared.write(0, 2, B), race("write", "write"));
        // A barrier of two warps orders these two but not the third.
        shared.meet(&[0, 1]);
        shared.read(0, 2, B).unwrap();
        assert_eq!(shared.read(0, 2, C), race("read", "write"));
        shared.meet_all();
        shared.read(0, 2, C).unwrap();
        shared.read(0, 2, A).unwrap();
        assert!(matches!(shared.write(0, 2, B), Err(Kind::Race { what: "write", other: "read", .. })));
        shared.meet_all();
        shared.write(0, 2, B).unwrap();
    }

    #[test]
    fn lanes_of_a_warp_race_until_they_meet() {
        let mut shared = shared();
        shared.write(8, 4, A).unwrap();
        shared.write(8, 4, A).unwrap();
        assert!(matches!(shared.read(8, 4, A + 1), Err(Kind::Race { .. })));
        shared.meet_warp(0);
        shared.read(8, 4, A + 1).unwrap();
        // Atomics on the same word do not race with each other.
        shared.atomic(8, B).unwrap();
        shared.atomic(8, C).unwrap();
    }

    #[test]
    fn a_copy_is_in_flight_until_it_lands() {
        let mut shared = shared();
        shared.depart(16, 16, A).unwrap();
        let flight = |what| Err(Kind::InFlight { what, offset: 16, by: 0 });
        assert_eq!(shared.read(16, 2, A), flight("read"));
        assert_eq!(shared.write(16, 2, B), flight("write"));
        shared.land(16, 16, A);
        shared.read(16, 2, A).unwrap();
        assert!(matches!(shared.read(16, 2, B), Err(Kind::Race { .. })));
    }

    #[test]
    fn time_starts_again_before_it_runs_out() {
        let mut shared = shared();
        shared.write(0, 4, A).unwrap();
        shared.now = u32::MAX / 2 + 1;
        shared.reset(256);
        assert_eq!(shared.now, 1);
        assert_eq!(shared.read(0, 4, A), Err(Kind::Unwritten { offset: 0 }));
    }
}
