//! The kernels on the emulator: host memory, the compiled kernels of this build, a fault as an error of the launch.

use std::alloc::{Layout, alloc, dealloc};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pheye_emulator as emulator;
use pheye_emulator::{Entry, Order, Range};

use crate::{Access, Error, Launch, Result, Spec};

include!(concat!(env!("OUT_DIR"), "/emulator_kernels.rs"));

/// Boundary of memory, as on a GPU.
const ALIGN: usize = 256;

/// The emulator.
pub struct Emulated {
    name: String,
    order: Order,
    /// Bytes it pretends to have, and how many of them are in use.
    memory: u64,
    used: AtomicU64,
    /// While recording, what was asked for.
    open: Mutex<Option<Vec<Step>>>,
}

/// Launches and copies to do again.
pub struct Recording(Vec<Step>);

#[derive(Clone)]
enum Step {
    Run {
        kernel: &'static str,
        entry: Entry,
        spec: Spec,
        grid: [usize; 3],
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

impl Emulated {
    pub(crate) fn open(device: &str, option: &str) -> Result<Emulated> {
        let mut memory = u64::MAX;
        let order = match option.split_once('=').unwrap_or((option, "")) {
            ("", _) => Order::Forward,
            ("reversed", "") => Order::Reversed,
            ("memory", bytes) => {
                memory = bytes.parse().map_err(|_| Error::Name(device.to_owned()))?;
                Order::Forward
            }
            ("shuffled", seed) => Order::Shuffled(seed.parse().map_err(|_| Error::Name(device.to_owned()))?),
            _ => return Err(Error::Name(device.to_owned())),
        };
        Ok(Emulated {
            name: device.to_owned(),
            order,
            memory,
            used: AtomicU64::new(0),
            open: Mutex::new(None),
        })
    }

    pub(crate) fn sms(&self) -> usize {
        4
    }

    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        Ok((self.memory - self.used.load(Ordering::Relaxed).min(self.memory), self.memory))
    }

    fn layout(bytes: usize) -> Layout {
        // Cannot fail for sizes that `alloc` let through.
        Layout::from_size_align(bytes.max(1), ALIGN).unwrap_or(Layout::new::<u128>())
    }

    pub(crate) fn alloc(&self, bytes: usize) -> Result<u64> {
        let wanted = bytes as u64;
        let (free, total) = self.memory()?;
        let none = Error::OutOfMemory { wanted, free, total };
        if bytes > isize::MAX as usize - ALIGN || wanted > free {
            return Err(none);
        }
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(Emulated::layout(bytes)) };
        if start.is_null() {
            return Err(none);
        }
        // SAFETY: just allocated. NaN, so that a test sees what nobody wrote.
        unsafe { start.write_bytes(0xff, bytes) };
        self.used.fetch_add(wanted, Ordering::Relaxed);
        Ok(start as u64)
    }

    pub(crate) fn free(&self, addr: u64, bytes: usize) {
        self.used.fetch_sub(bytes as u64, Ordering::Relaxed);
        // SAFETY: `Memory` gives back once what `alloc` gave it.
        unsafe { dealloc(addr as *mut u8, Emulated::layout(bytes)) };
    }

    pub(crate) fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        // SAFETY: `Gpu::upload` checked the region's size, and regions lie inside live memory.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    pub(crate) fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        // SAFETY: as for `upload`.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    pub(crate) fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.take(Step::Copy { from, to, bytes })
    }

    pub(crate) fn clear(&self, addr: u64, bytes: usize) -> Result<()> {
        self.take(Step::Clear { addr, bytes })
    }

    fn find(kernel: &str) -> Result<(Entry, Spec)> {
        let (_, entry, spec) =
            KERNELS.iter().find(|k| k.0 == kernel).ok_or_else(|| Error::NoKernel(kernel.to_owned()))?;
        Ok((*entry, Spec::from(**spec)))
    }

    pub(crate) fn spec(&self, kernel: &'static str) -> Result<Spec> {
        Emulated::find(kernel).map(|(_, spec)| spec)
    }

    pub(crate) fn run(&self, launch: &Launch, grid: [usize; 3], params: &[u8]) -> Result<()> {
        let (entry, spec) = Emulated::find(launch.kernel)?;
        let ranges = launch.regions.iter().map(|&(access, region)| Range {
            addr: region.addr as usize,
            bytes: region.bytes,
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
        .map_err(|e| match e {
            Error::Driver { cause, .. } => launch.failed(grid, cause),
            other => other,
        })
    }

    /// Does `step` now, or keeps it when recording.
    fn take(&self, step: Step) -> Result<()> {
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        match &mut *open {
            Some(steps) => {
                steps.push(step);
                Ok(())
            }
            None => {
                drop(open);
                self.step(&step)
            }
        }
    }

    fn step(&self, step: &Step) -> Result<()> {
        match step {
            Step::Run { kernel, entry, spec, grid, params, ranges } => {
                let mut aligned = vec![0u128; params.len().div_ceil(16)];
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut aligned);
                bytes[..params.len()].copy_from_slice(params);
                let launch = emulator::Launch {
                    kernel,
                    entry: *entry,
                    grid: grid.map(|g| g as u32),
                    threads: spec.threads as u32,
                    shared: spec.shared,
                    params: &bytes[..params.len()],
                    ranges,
                    order: self.order,
                };
                // SAFETY: the registry holds kernels that the build script compiled for the emulator, `Launch::run` compared the
                // size of the parameters, and regions lie inside live memory that only launches touch, one at a time.
                unsafe { emulator::run(&launch) }
                    .map_err(|fault| Error::Driver { call: "run", cause: fault.to_string() })
            }
            Step::Copy { from, to, bytes } => {
                // SAFETY: `Gpu::copy` checked the sizes, and regions lie inside live memory.
                unsafe { std::ptr::copy(*from as *const u8, *to as *mut u8, *bytes) };
                Ok(())
            }
            Step::Clear { addr, bytes } => {
                // SAFETY: a region lies inside live memory.
                unsafe { std::ptr::write_bytes(*addr as *mut u8, 0, *bytes) };
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
        *self.open.lock().unwrap_or_else(|e| e.into_inner()) = Some(Vec::new());
        let outcome = work();
        let steps = self.open.lock().unwrap_or_else(|e| e.into_inner()).take();
        outcome.map(|()| Recording(steps.unwrap_or_default()))
    }

    pub(crate) fn replay(&self, recording: &Recording) -> Result<()> {
        recording.0.iter().try_for_each(|step| self.step(step))
    }
}

impl fmt::Display for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
