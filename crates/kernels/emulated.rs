//! Runs the kernels on the emulator: device memory is host memory, and a fault is returned as an error of the
//! launch.

use std::alloc::{Layout, alloc, dealloc};
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::Duration;

use pheye_emulator as emulator;
use pheye_emulator::{Entry, Order, Range, Rounding};

use crate::image::Sets;
use crate::{Access, Error, KernelSet, Launch, Result, Spec};

/// The alignment of allocations in bytes, the same as on a GPU.
const ALIGN: usize = 256;

/// The emulated device.
pub(crate) struct Emulated {
    name: String,
    options: Options,
    kernels: Sets,
    /// The number of bytes that are allocated.
    used: AtomicU64,
    /// For each thread that records, the steps recorded so far.
    open: Mutex<Vec<(ThreadId, Vec<Step>)>>,
    /// Held during each access to device memory, so that operations run one after the other as on a CUDA
    /// stream.
    turn: Mutex<()>,
}

/// Launches, copies and clears to replay.
pub(crate) struct Recording(Vec<Step>);

#[derive(Clone)]
enum Step {
    Run {
        kernel: &'static str,
        entry: Entry,
        spec: Spec,
        grid: [u32; 3],
        params: Vec<u8>,
        ranges: Vec<Range>,
    },
    Copy {
        from: u64,
        to: u64,
        bytes: usize,
    },
    Clear {
        addr: u64,
        bytes: usize,
    },
}

/// What follows `emulator:`, separated by commas.
struct Options {
    order: Order,
    rounding: Rounding,
    /// The number of multiprocessors. Work is divided for a GPU of this size; the emulator itself uses all cores of the CPU.
    sms: usize,
    /// The size of the memory in bytes.
    memory: u64,
}

impl Options {
    fn parse(list: &str) -> Option<Options> {
        let mut options =
            Options { order: Order::Forward, rounding: Rounding::Nearest, sms: 4, memory: u64::MAX };
        for option in list.split(',').filter(|_| !list.is_empty()) {
            match option.split_once('=').unwrap_or((option, "")) {
                ("reversed", "") => options.order = Order::Reversed,
                ("shuffled", seed) => options.order = Order::Shuffled(seed.parse().ok()?),
                ("sms", count) => options.sms = count.parse().ok().filter(|n| (1..=MAX_SMS).contains(n))?,
                ("mma", "a100") => options.rounding = Rounding::A100,
                ("mma", "h100") => options.rounding = Rounding::H100,
                ("memory", bytes) => options.memory = bytes.parse().ok()?,
                _ => return None,
            }
        }
        Some(options)
    }
}

/// More multiprocessors than any GPU has.
const MAX_SMS: usize = 1024;

impl Emulated {
    pub(crate) fn open(device: &str, option: &str) -> Result<Emulated> {
        Ok(Emulated {
            name: device.to_owned(),
            options: Options::parse(option).ok_or_else(|| Error::Name(device.to_owned()))?,
            kernels: Sets::own(),
            used: AtomicU64::new(0),
            open: Mutex::default(),
            turn: Mutex::default(),
        })
    }

    pub(crate) fn sms(&self) -> usize {
        self.options.sms
    }

    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        let total = self.options.memory;
        Ok((total - self.used.load(Ordering::Relaxed).min(total), total))
    }

    fn layout(bytes: usize) -> Layout {
        // Cannot fail: `alloc` refuses the sizes for which it would.
        Layout::from_size_align(bytes.max(1), ALIGN).unwrap_or(Layout::new::<u128>())
    }

    pub(crate) fn alloc(&self, bytes: usize) -> Result<u64> {
        let wanted = bytes as u64;
        let claim = |used: u64| used.checked_add(wanted).filter(|used| *used <= self.options.memory);
        let claimed = bytes <= isize::MAX as usize - ALIGN
            && self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim).is_ok();
        let none = || {
            let (free, total) = self.memory()?;
            Err(Error::OutOfMemory { wanted, free, total })
        };
        if !claimed {
            return none();
        }
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(Emulated::layout(bytes)) };
        if start.is_null() {
            self.used.fetch_sub(wanted, Ordering::Relaxed);
            return none();
        }
        // SAFETY: the `bytes` bytes were just allocated. 0xff bytes are NaN in every float type, so a test
        // detects an element that was never written.
        unsafe { start.write_bytes(0xff, bytes) };
        Ok(start.expose_provenance() as u64)
    }

    pub(crate) fn free(&self, addr: u64, bytes: usize) {
        self.used.fetch_sub(bytes as u64, Ordering::Relaxed);
        // SAFETY: `alloc` returned the address for this size, and `Allocation` calls this once, when no
        // region is left.
        unsafe { dealloc(at(addr), Emulated::layout(bytes)) };
    }

    pub(crate) fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        let _turn = self.turn();
        // SAFETY: `Gpu::upload` checked the size and holds the region, which keeps the memory alive; the lock
        // `turn` excludes other accesses.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), at(to), from.len()) };
        Ok(())
    }

    pub(crate) fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        let _turn = self.turn();
        // SAFETY: the same as in `upload`, with the size checked by `Gpu::download`.
        unsafe { ptr::copy_nonoverlapping(at(from), to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Recovers from a poisoned lock: a panic leaves memory with unspecified contents, as a fault does.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.take(Step::Copy { from, to, bytes })
    }

    pub(crate) fn clear(&self, addr: u64, bytes: usize) -> Result<()> {
        self.take(Step::Clear { addr, bytes })
    }

    /// Makes the kernels of another crate available.
    pub(crate) fn load(&self, kernels: &'static KernelSet) -> Result<()> {
        if !kernels.has_emulated() {
            let reason =
                format!("{} was built without feature `emulator` of pheye-kernels", kernels.crate_name());
            return Err(Error::NoKernels { device: self.name.clone(), reason });
        }
        self.kernels.add(kernels)
    }

    fn find(&self, kernel: &str) -> Result<(Entry, Spec)> {
        let (_, entry, spec) = self.kernels.find(kernel, |set| set.emulated(kernel))?;
        Ok((*entry, Spec::from(**spec)))
    }

    pub(crate) fn spec(&self, kernel: &'static str) -> Result<Spec> {
        self.find(kernel).map(|(_, spec)| spec)
    }

    pub(crate) fn run(&self, launch: &Launch, grid: [u32; 3], params: &[u8]) -> Result<()> {
        let (entry, spec) = self.find(launch.kernel)?;
        let ranges = launch.regions.iter().map(|(access, region)| Range {
            addr: region.addr() as usize,
            bytes: region.bytes(),
            access: match access {
                Access::Read => emulator::Access::Read,
                Access::Write => emulator::Access::Write,
                Access::Update => emulator::Access::Update,
            },
            label: region.to_string(),
        });
        let kernel = launch.kernel;
        self.take(Step::Run {
            kernel,
            entry,
            spec,
            grid,
            params: params.to_owned(),
            ranges: ranges.collect(),
        })
    }

    /// Runs `step`, or records it if this thread is recording.
    fn take(&self, step: Step) -> Result<()> {
        if let Some((_, steps)) =
            self.recordings().iter_mut().find(|(thread, _)| *thread == thread::current().id())
        {
            steps.push(step);
            return Ok(());
        }
        let _turn = self.turn();
        self.step(&step)
    }

    fn recordings(&self) -> MutexGuard<'_, Vec<(ThreadId, Vec<Step>)>> {
        self.open.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Runs `step`. The caller holds the lock `turn`.
    fn step(&self, step: &Step) -> Result<()> {
        match step {
            Step::Run { kernel, entry, spec, grid, params, ranges } => {
                let mut aligned = vec![0u128; params.len().div_ceil(16)];
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut aligned);
                bytes[..params.len()].copy_from_slice(params);
                let launch = emulator::Launch {
                    kernel,
                    entry: *entry,
                    grid: *grid,
                    threads: spec.threads as u32,
                    shared: spec.shared,
                    params: &bytes[..params.len()],
                    ranges,
                    order: self.options.order,
                    rounding: self.options.rounding,
                };
                // SAFETY: a `KernelSet` contains only kernels that a build script compiled for the emulator,
                // and `Launch::run` compared the size of the parameters. The memory of the regions is alive:
                // `Launch` holds the regions, and `Graph::launch` holds the allocations of a recording. The
                // caller holds `turn`.
                unsafe { emulator::run(&launch) }
                    .map_err(|fault| Error::Driver { call: "run", cause: fault.to_string() })
            }
            Step::Copy { from, to, bytes } => {
                // SAFETY: `Gpu::copy` checked the sizes, the memory is alive as in a launch, and the caller
                // holds `turn`.
                unsafe { ptr::copy(at(*from), at(*to), *bytes) };
                Ok(())
            }
            Step::Clear { addr, bytes } => {
                // SAFETY: a region is inside its allocation, which is alive, and the caller holds `turn`.
                unsafe { ptr::write_bytes(at(*addr), 0, *bytes) };
                Ok(())
            }
        }
    }

    pub(crate) fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    pub(crate) fn time(&self, _work: impl FnOnce() -> Result<()>) -> Result<Duration> {
        Err(Error::Unsupported("timing"))
    }

    pub(crate) fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Recording> {
        /// Ends the recording, also when `work` panics.
        struct End<'a>(&'a Emulated, ThreadId);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.recordings().retain(|(thread, _)| *thread != self.1);
            }
        }
        let me = thread::current().id();
        let mut open = self.recordings();
        if open.iter().any(|(thread, _)| *thread == me) {
            return Err(Error::Unsupported("a recording within recorded work"));
        }
        open.push((me, Vec::new()));
        drop(open);
        let _end = End(self, me);
        work()?;
        let mut open = self.recordings();
        let mine = open.iter_mut().find(|(thread, _)| *thread == me);
        Ok(Recording(mine.map(|(_, steps)| std::mem::take(steps)).unwrap_or_default()))
    }

    /// Runs all steps of `recording`, or appends them to the recording of this thread.
    pub(crate) fn replay(&self, recording: &Recording) -> Result<()> {
        if let Some((_, steps)) =
            self.recordings().iter_mut().find(|(thread, _)| *thread == thread::current().id())
        {
            steps.extend_from_slice(&recording.0);
            return Ok(());
        }
        let _turn = self.turn();
        recording.0.iter().try_for_each(|step| self.step(step))
    }
}

/// A pointer to an address inside an allocation of `alloc`, which exposed its provenance.
fn at(addr: u64) -> *mut u8 {
    ptr::with_exposed_provenance_mut(addr as usize)
}

impl fmt::Display for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
