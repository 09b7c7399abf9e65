//! The shared memory of a block with its shadow: who wrote and who read each half-word, and when.
//!
//! Time is a counter that each barrier advances. `seen[w][v]` is the time before which everything that warp v did is ordered
//! before what warp w does now: two accesses by different warps race unless the earlier one's time is below it (the vector
//! clocks of Lamport, 1978, in units of warps). Within a warp, `seen[w][w]` is the time of its last `__syncwarp`.

use crate::Kind;

/// Bytes per shadow cell.
const GRAIN: usize = 2;
const WARPS: usize = 32;

/// `thread` is the index + 1, 0 for nobody.
#[derive(Clone, Copy, Default)]
struct Touch {
    time: u32,
    thread: u32,
    /// Other lanes of its warp did the same, with no `__syncwarp` between.
    many: bool,
}

/// Two readers, of different warps: whoever writes next is not in both.
#[derive(Clone, Copy, Default)]
struct Cell {
    write: Touch,
    reads: [Touch; 2],
    /// The thread (+ 1) whose cp.async has yet to land here, valid when `flight_time` is of this block.
    flight: Touch,
}

#[derive(Default)]
pub(crate) struct Shared {
    memory: Vec<u128>,
    size: usize,
    cells: Vec<Cell>,
    /// The time at which this block started: what is stamped earlier was another block's.
    start: u32,
    now: u32,
    seen: Vec<[u32; WARPS]>,
}

impl Shared {
    /// Makes ready for a block: contents unwritten (NaN), nobody has touched anything.
    pub fn reset(&mut self, size: usize) {
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

    pub fn size(&self) -> usize {
        self.size
    }

    /// Start of the memory, on a 128-byte boundary.
    pub fn base(&mut self) -> *mut u8 {
        let start = self.memory.as_mut_ptr().cast::<u8>();
        start.wrapping_add(start.align_offset(128))
    }

    /// The offset of `addr`, when it is in or just outside of this memory.
    pub fn offset(&mut self, addr: usize) -> Option<isize> {
        let base = self.base() as usize;
        let margin = 1 << 16;
        (addr + margin >= base && addr < base + self.size + margin).then(|| addr as isize - base as isize)
    }

    fn ordered(&self, by: Touch, thread: usize) -> bool {
        let by_thread = by.thread as usize - 1;
        (by_thread == thread && !by.many) || by.time < self.seen[thread / 32][by_thread / 32]
    }

    fn touch(&self, thread: usize) -> Touch {
        Touch { time: self.now, thread: thread as u32 + 1, many: false }
    }

    fn live(&self, touch: Touch) -> bool {
        touch.thread != 0 && touch.time >= self.start
    }

    fn cells(&self, offset: isize, bytes: usize, what: &'static str) -> Result<std::ops::Range<usize>, Kind> {
        if offset < 0 || offset as usize + bytes > self.size {
            return Err(Kind::SharedOutOfBounds { what, offset, bytes, size: self.size });
        }
        Ok(offset as usize / GRAIN..(offset as usize + bytes).div_ceil(GRAIN))
    }

    pub fn read(&mut self, offset: isize, bytes: usize, thread: usize) -> Result<(), Kind> {
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
            // One slot a warp, so that the two hold readers of different warps.
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

    pub fn write(&mut self, offset: isize, bytes: usize, thread: usize) -> Result<(), Kind> {
        for i in self.cells(offset, bytes, "write")? {
            self.check_write(i, thread)?;
            self.cells[i].write = self.touch(thread);
        }
        Ok(())
    }

    /// An atomic operation: ordered with the others on the word, so no race among them.
    pub fn atomic(&mut self, offset: isize, thread: usize) -> Result<(), Kind> {
        for i in self.cells(offset, 4, "atomic")? {
            if !self.live(self.cells[i].write) {
                return Err(Kind::Unwritten { offset: i * GRAIN });
            }
            self.cells[i].write = self.touch(thread);
        }
        Ok(())
    }

    /// A cp.async to here was issued.
    pub fn depart(&mut self, offset: isize, bytes: usize, thread: usize) -> Result<(), Kind> {
        for i in self.cells(offset, bytes, "cp.async")? {
            self.check_write(i, thread)?;
            self.cells[i].flight = self.touch(thread);
        }
        Ok(())
    }

    /// It has landed.
    pub fn land(&mut self, offset: isize, bytes: usize, thread: usize) {
        let cells = offset as usize / GRAIN..(offset as usize + bytes).div_ceil(GRAIN);
        let now = self.touch(thread);
        for cell in &mut self.cells[cells] {
            cell.flight = Touch::default();
            cell.write = now;
        }
    }

    /// All warps met at `__syncthreads`.
    pub fn meet_all(&mut self) {
        self.now += 1;
        self.seen.fill([self.now; WARPS]);
    }

    /// These warps met at a named barrier.
    pub fn meet(&mut self, warps: &[usize]) {
        self.now += 1;
        let mut joined = [0; WARPS];
        for &w in warps {
            joined.iter_mut().zip(self.seen[w]).for_each(|(j, s)| *j = (*j).max(s));
        }
        warps.iter().for_each(|&w| joined[w] = self.now);
        warps.iter().for_each(|&w| self.seen[w] = joined);
    }

    /// The lanes of `warp` met at `__syncwarp`.
    pub fn meet_warp(&mut self, warp: usize) {
        self.now += 1;
        self.seen[warp][warp] = self.now;
    }
}
