//! Runs one block. Its threads are fibers that take turns until all have returned or one has a fault.

use std::cell::{Cell, RefCell};

use corosensei::stack::{DefaultStack, Stack};
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::global::{Globals, inside};
use crate::races::{Fences, Touch};
use crate::shared::Shared;
use crate::warp::{Operands, Operation, Pending, Warp};
use crate::{Fault, Kind, Launch, matrix};

mod copies;

use copies::Copies;

/// The stack size of a thread in bytes. Below the stack is a guard page.
const STACK: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// Waits at barrier `id` for this number of threads; id 0 is `__syncthreads`.
    Barrier(u32, u32),
    Warp,
    Done,
}

struct Thread {
    state: State,
    yielder: *const Yielder<(), ()>,
    /// The lowest address of its stack, and the address after the highest.
    stack: [usize; 2],
    copies: Copies,
}

pub(crate) struct Block<'a> {
    launch: &'a Launch<'a>,
    globals: &'a Globals<'a>,
    pub at: [u32; 3],
    pub current: usize,
    threads: Vec<Thread>,
    warps: Vec<Warp>,
    shared: Shared,
    fences: Fences,
    fault: Option<Fault>,
}

thread_local! {
    static BLOCK: Cell<*mut Block<'static>> = const { Cell::new(std::ptr::null_mut()) };
    /// The stacks and the shared memory of earlier blocks on this OS thread, for reuse.
    static KEPT: RefCell<(Vec<DefaultStack>, Shared)> = RefCell::default();
}

/// Calls `f` with the block that this OS thread is running.
///
/// # Panics
/// When no block is running.
///
/// # Safety
/// `f` must not switch fibers.
pub(crate) unsafe fn with<R>(f: impl FnOnce(&mut Block) -> R) -> R {
    let block = BLOCK.get();
    assert!(!block.is_null(), "a call of the emulator from outside of a kernel");
    // SAFETY: the pointer is to the block that is running. It lives in the frame of `run` on this same OS
    // thread, and no reference to it exists while a fiber runs.
    f(unsafe { &mut *block })
}

/// Suspends the current thread, so that other threads run, until it is ready again.
pub(crate) fn suspend() {
    // SAFETY: the closure ends before the switch, and the yielder lives as long as the fiber.
    unsafe {
        let yielder = with(|b| b.threads[b.current].yielder);
        (*yielder).suspend(());
    }
}

/// Calls `f`. If it returns a fault, records the fault and never resumes the current thread.
pub(crate) fn checked<R>(f: impl FnOnce(&mut Block) -> Result<R, Kind>) -> R {
    // SAFETY: the closure ends before any switch of fibers.
    match unsafe { with(|b| f(b).map_err(|kind| b.fail(kind))) } {
        Ok(value) => value,
        Err(()) => loop {
            suspend();
        },
    }
}

/// Runs block `at`.
///
/// # Safety
/// As for [`crate::run`].
pub(crate) unsafe fn run(launch: &Launch, globals: &Globals, at: [u32; 3]) -> Result<(), Fault> {
    let count = launch.threads as usize;
    let (mut stacks, mut shared) = KEPT.take();
    while stacks.len() < count {
        let stack = DefaultStack::new(STACK);
        stacks.push(stack.map_err(|e| Fault::new(launch.kernel, at, 0, Kind::Stacks(e.to_string())))?);
    }
    shared.reset(launch.shared);
    let thread = |stack: &DefaultStack| Thread {
        state: State::Ready,
        yielder: std::ptr::null(),
        stack: [stack.limit().get(), stack.base().get()],
        copies: Copies::default(),
    };
    let threads = stacks[..count].iter().map(thread).collect();
    let warps = (0..count / 32).map(|_| Warp::default()).collect();
    let fences = Fences::default();
    let mut block = Block { launch, globals, at, current: 0, threads, warps, shared, fences, fault: None };
    let block_ptr: *mut Block = &raw mut block;
    let (entry, params) = (launch.entry, launch.params.as_ptr());
    let mut fibers: Vec<_> = stacks
        .drain(..count)
        .map(|stack| {
            Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
                // SAFETY: this is a fiber of the block; the caller of `run` guarantees the entry and its
                // params.
                unsafe {
                    with(|b| b.threads[b.current].yielder = yielder);
                    entry(params);
                }
                checked(|b| b.exit());
            })
        })
        .collect();
    BLOCK.set(block_ptr.cast());
    let salt = u64::from(at[0]) | u64::from(at[1]) << 24 | u64::from(at[2]) << 48;
    let warp_order = launch.order.of(count / 32, salt);
    let lane_orders: Vec<_> =
        (0..count / 32).map(|w| launch.order.of(32, salt ^ (w as u64 + 1) << 17)).collect();
    // SAFETY: until the loop ends, `block` is accessed only through this pointer, and every reference made
    // from it ends before `resume`.
    unsafe {
        loop {
            let mut progressed = false;
            for &w in &warp_order {
                let mut again = true;
                while again && (*block_ptr).fault.is_none() {
                    again = false;
                    for &lane in &lane_orders[w] {
                        let t = 32 * w + lane;
                        if (&(*block_ptr).threads)[t].state != State::Ready {
                            continue;
                        }
                        (*block_ptr).current = t;
                        if let CoroutineResult::Return(()) = fibers[t].resume(()) {
                            (&mut (*block_ptr).threads)[t].state = State::Done;
                        }
                        again = true;
                        if (*block_ptr).fault.is_some() {
                            break;
                        }
                    }
                    progressed |= again;
                }
            }
            let block = &mut *block_ptr;
            if block.fault.is_some() || (!progressed && !block.release()) {
                break;
            }
        }
    }
    BLOCK.set(std::ptr::null_mut());
    let Block { fault, shared, .. } = block;
    for mut fiber in fibers {
        if !fiber.done() {
            // SAFETY: the frames on the stack belong to the kernel (C++ without exceptions, plain data, no
            // destructors) and to `checked` and `suspend`, which own nothing.
            unsafe { fiber.force_reset() };
        }
        stacks.push(fiber.into_stack());
    }
    KEPT.set((stacks, shared));
    fault.map_or(Ok(()), Err)
}

impl Block<'_> {
    fn fail(&mut self, kind: Kind) {
        let (launch, at, thread) = (self.launch, self.at, self.current);
        self.fault.get_or_insert_with(|| Fault::new(launch.kernel, at, thread, kind));
    }

    pub(crate) fn launch(&self) -> &Launch<'_> {
        self.launch
    }

    /// Called when no thread can run. If all threads wait at `__syncthreads`, makes them ready and returns
    /// true. Otherwise the block is over: all threads have returned, or there is a fault.
    fn release(&mut self) -> bool {
        let waiting = self.threads.iter().filter(|t| matches!(t.state, State::Barrier(..))).count();
        if self.threads.iter().all(|t| t.state == State::Done) {
            return false;
        }
        if self.threads.iter().all(|t| matches!(t.state, State::Barrier(0, _))) {
            self.threads.iter_mut().for_each(|t| t.state = State::Ready);
            self.shared.meet_all();
            return true;
        }
        let stuck = self.threads.iter().position(|t| !matches!(t.state, State::Barrier(0, _))).unwrap_or(0);
        self.current = self.threads.iter().position(|t| t.state != State::Done).unwrap_or(0);
        let state = match self.threads[stuck].state {
            State::Done => "has returned",
            State::Warp => "waits for lanes of its warp",
            _ => "waits at another barrier",
        };
        self.fail(Kind::Barrier { waiting, missing: stuck as u32, state });
        false
    }

    fn exit(&mut self) -> Result<(), Kind> {
        let (w, lane) = (self.current / 32, self.current % 32);
        let warp = &mut self.warps[w];
        warp.exited |= 1 << lane;
        match warp.pending.iter().find(|p| p.mask & warp.exited != 0) {
            Some(p) => Err(Kind::ExitedLanes {
                operation: p.operation.name(),
                mask: p.mask,
                exited: p.mask & warp.exited,
            }),
            None => Ok(()),
        }
    }

    /// The start of the block's shared memory, for a kernel that uses `wanted` bytes of it.
    pub(crate) fn shared_base(&mut self, wanted: usize) -> Result<*mut u8, Kind> {
        let given = self.shared.size();
        if wanted > given { Err(Kind::SharedSize { wanted, given }) } else { Ok(self.shared.base()) }
    }

    /// The offset of `addr` in shared memory. Addresses just outside of it count too, unless they are in a
    /// buffer of the launch.
    fn shared_offset(&mut self, addr: usize, bytes: usize) -> Option<isize> {
        let (size, globals) = (self.shared.size() as isize, self.globals);
        self.shared.offset(addr).filter(|o| (0..size).contains(o) || !globals.contains(addr, bytes))
    }

    /// Checks a load or store of the kernel.
    pub(crate) fn access(
        &mut self,
        addr: usize,
        bytes: usize,
        write: bool,
        aligned: bool,
    ) -> Result<(), Kind> {
        let [low, high] = self.threads[self.current].stack;
        if addr >= low && addr < high {
            return Ok(());
        }
        let what = if write { "write" } else { "read" };
        if aligned && !addr.is_multiple_of(bytes) {
            return Err(Kind::Misaligned { what, addr, bytes });
        }
        let params = self.launch.params;
        if !write && inside(addr, bytes, params.as_ptr() as usize, params.len()) {
            return Ok(());
        }
        if let Some(offset) = self.shared_offset(addr, bytes) {
            return match write {
                true => self.shared.write(offset, bytes, self.current),
                false => self.shared.read(offset, bytes, self.current),
            };
        }
        self.global(addr, bytes, write)
    }

    /// Checks an access to global memory.
    fn global(&self, addr: usize, bytes: usize, write: bool) -> Result<(), Kind> {
        let now = self.touch();
        let before = |thread: u32, time: u32| self.shared.before(self.current, thread, time);
        let ordered = |by: Touch| match by.block == now.block {
            true => before(by.thread, by.time),
            false => self.fences.ordered(by, before),
        };
        self.globals.access(addr, bytes, write, now, ordered)
    }

    /// What the current thread does next, as an access to global memory.
    fn touch(&self) -> Touch {
        Touch { block: self.linear(), thread: self.current as u32, time: self.shared.time() }
    }

    /// The current thread calls `__threadfence()`.
    pub(crate) fn fence(&mut self) {
        self.fences.fence(self.touch(), self.shared.seen(self.current));
    }

    /// Checks an atomic read-modify-write of a word, and does it.
    pub(crate) fn atomic(&mut self, addr: usize, operation: impl FnOnce() -> u32) -> Result<u32, Kind> {
        if !addr.is_multiple_of(4) {
            return Err(Kind::Misaligned { what: "atomic", addr, bytes: 4 });
        }
        match self.shared_offset(addr, 4) {
            Some(offset) => {
                self.shared.atomic(offset, self.current)?;
                Ok(operation())
            }
            None => {
                self.globals.atomic(addr)?;
                let thread = self.current as u32;
                Ok(self.fences.atomic(self.globals.words(), addr, thread, operation))
            }
        }
    }

    fn linear(&self) -> u32 {
        let [x, y, _] = self.launch.grid;
        self.at[0] + x * (self.at[1] + y * self.at[2])
    }

    /// The current thread arrives at a barrier. Returns whether it has to wait.
    pub(crate) fn barrier(&mut self, id: u32, threads: u32) -> bool {
        self.threads[self.current].state = State::Barrier(id, threads);
        if id == 0 {
            return true;
        }
        let here: Vec<usize> = (0..self.threads.len())
            .filter(|&t| self.threads[t].state == State::Barrier(id, threads))
            .collect();
        if here.len() < threads as usize {
            return true;
        }
        let mut warps: Vec<usize> = here.iter().map(|t| t / 32).collect();
        warps.dedup();
        self.shared.meet(&warps);
        here.iter().for_each(|&t| self.threads[t].state = State::Ready);
        false
    }

    /// The current lane arrives at a warp operation. Returns whether it has to wait for other lanes.
    pub(crate) fn together(
        &mut self,
        operation: Operation,
        mask: u32,
        operands: Operands,
    ) -> Result<bool, Kind> {
        let (w, lane) = (self.current / 32, self.current % 32);
        let (bit, name) = (1u32 << lane, operation.name());
        let warp = &mut self.warps[w];
        if mask & bit == 0 {
            return Err(Kind::OutsideMask { operation: name, mask, lane: lane as u32 });
        }
        if operation == Operation::Shuffle && mask >> operands.lane & 1 == 0 {
            return Err(Kind::OutsideMask { operation: name, mask, lane: operands.lane });
        }
        if mask & warp.exited != 0 {
            return Err(Kind::ExitedLanes { operation: name, mask, exited: mask & warp.exited });
        }
        let i = match warp.pending.iter().position(|p| p.mask & mask != 0) {
            Some(i) if (warp.pending[i].operation, warp.pending[i].mask) == (operation, mask) => i,
            Some(i) => {
                return Err(Kind::Diverged { operation: name, other: warp.pending[i].operation.name() });
            }
            None => {
                let operands = [Operands::default(); 32];
                warp.pending.push(Pending { operation, mask, arrived: 0, operands });
                warp.pending.len() - 1
            }
        };
        let pending = &mut warp.pending[i];
        pending.operands[lane] = operands;
        pending.arrived |= bit;
        if pending.arrived != mask {
            self.threads[self.current].state = State::Warp;
            return Ok(true);
        }
        let done = warp.pending.swap_remove(i);
        self.complete(w, &done)?;
        for lane in (0..32).filter(|lane| mask >> lane & 1 == 1) {
            self.threads[32 * w + lane].state = State::Ready;
        }
        Ok(false)
    }

    /// The current lane's result of the last operation of its warp.
    pub(crate) fn result(&self) -> u32 {
        self.warps[self.current / 32].results[self.current % 32]
    }

    fn complete(&mut self, w: usize, done: &Pending) -> Result<(), Kind> {
        let of = &done.operands;
        match done.operation {
            Operation::Barrier => self.shared.meet_warp(w),
            Operation::Shuffle => {
                for lane in (0..32).filter(|lane| done.mask >> lane & 1 == 1) {
                    self.warps[w].results[lane] = of[of[lane].lane as usize].value;
                }
            }
            Operation::Ballot => {
                let votes =
                    (0..32).fold(0, |votes, l| votes | (u32::from(of[l].value != 0) << l) & done.mask);
                for lane in (0..32).filter(|lane| done.mask >> lane & 1 == 1) {
                    self.warps[w].results[lane] = votes;
                }
            }
            Operation::LoadMatrix { count, transpose } => self.load_matrix(w, of, count, transpose)?,
            Operation::MultiplyMatrix => {
                // SAFETY: each lane waits for this operation and passed the addresses of its own arrays of 4,
                // 4 and 2 words.
                unsafe {
                    let a = of.map(|o| *(o.address[1] as *const [u32; 4]));
                    let b = of.map(|o| *(o.address[2] as *const [u32; 2]));
                    let mut d = of.map(|o| *(o.address[0] as *const [f32; 4]));
                    matrix::multiply(&mut d, &a, &b, self.launch.rounding);
                    of.iter().zip(d).for_each(|(o, d)| *(o.address[0] as *mut [f32; 4]) = d);
                }
            }
        }
        Ok(())
    }

    fn load_matrix(
        &mut self,
        w: usize,
        of: &[Operands; 32],
        count: usize,
        transpose: bool,
    ) -> Result<(), Kind> {
        let caller = self.current;
        for m in 0..count {
            let mut rows = [[0u16; 8]; 8];
            for (i, row) in rows.iter_mut().enumerate() {
                let addr = of[8 * m + i].address[1];
                // The row is read on behalf of the lane that passed its address.
                self.current = 32 * w + 8 * m + i;
                if self.shared.offset(addr).is_none() {
                    let near = "which is not shared memory".to_owned();
                    return Err(Kind::OutOfBounds { what: "ldmatrix", addr, bytes: 16, near });
                }
                self.access(addr, 16, false, true)?;
                // SAFETY: the check above found 16 aligned bytes that the kernel may read.
                *row = unsafe { *(addr as *const [u16; 8]) };
            }
            for (o, word) in of.iter().zip(matrix::distribute(&rows, transpose)) {
                // SAFETY: each lane waits for this operation and passed the address of its own array of
                // `count` words.
                unsafe { *(o.address[0] as *mut u32).add(m) = word };
            }
        }
        self.current = caller;
        Ok(())
    }
}
