//! One type for both launchers.
#![cfg_attr(
    not(any(feature = "cuda", feature = "emulator")),
    // Without a launcher `Gpu` has no values, and what follows one never runs.
    allow(unreachable_code, unused_variables, dead_code)
)]

use std::fmt;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "cuda")]
use crate::cuda::Cuda;
#[cfg(feature = "emulator")]
use crate::emulated::Emulated;
use crate::{Error, Launch, Memory, Region, Result, Spec};

/// An open GPU: a launcher for the kernels, and the memory they work on. Cloning shares it.
#[derive(Clone)]
pub struct Gpu(Launcher);

#[derive(Clone)]
enum Launcher {
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(Arc<Cuda>),
    /// The emulator.
    #[cfg(feature = "emulator")]
    Emulator(Arc<Emulated>),
}

/// Does the same on either launcher.
macro_rules! either {
    ($gpu:expr, $launcher:ident => $does:expr) => {
        match $gpu.0 {
            #[cfg(feature = "cuda")]
            Launcher::Cuda(ref $launcher) => $does,
            #[cfg(feature = "emulator")]
            Launcher::Emulator(ref $launcher) => $does,
        }
    };
}

impl Gpu {
    /// Opens the GPU named `device`: `cuda`, `cuda:1`, `emulator`, `emulator:reversed` or `emulator:shuffled=7`.
    ///
    /// # Errors
    /// [`Error::NoKernels`] when the program was built without that launcher or its kernels, else what the launcher finds.
    pub fn open(device: &str) -> Result<Gpu> {
        let (name, option) = device.split_once(':').unwrap_or((device, ""));
        match name {
            #[cfg(feature = "cuda")]
            "cuda" => Cuda::open(device, option).map(|c| Gpu(Launcher::Cuda(Arc::new(c)))),
            #[cfg(feature = "emulator")]
            "emulator" => Emulated::open(device, option).map(|e| Gpu(Launcher::Emulator(Arc::new(e)))),
            #[allow(unreachable_patterns)] // with both features
            "cuda" | "emulator" => Err(Error::NoKernels {
                device: device.to_owned(),
                reason: format!("it was built without feature `{name}`"),
            }),
            _ => Err(Error::Name(device.to_owned())),
        }
    }

    /// Its multiprocessors.
    pub fn sms(&self) -> usize {
        either!(self, g => g.sms())
    }

    /// Bytes free and in all.
    ///
    /// # Errors
    /// [`Error::Driver`] when the driver does not say.
    pub fn memory(&self) -> Result<(u64, u64)> {
        either!(self, g => g.memory())
    }

    /// New memory, its contents unspecified.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn alloc(&self, bytes: usize) -> Result<Memory> {
        let addr: Result<u64> = either!(self, g => g.alloc(bytes));
        Ok(Memory::new(self.clone(), addr?, bytes))
    }

    pub(crate) fn free(&self, addr: u64, bytes: usize) {
        either!(self, g => g.free(addr, bytes))
    }

    /// Copies `from` to the start of `to`.
    ///
    /// # Errors
    /// [`Error::Size`] when it does not fit, [`Error::Driver`] when the device fails.
    pub fn upload(&self, from: &[u8], to: Region) -> Result<()> {
        fits("an upload", from.len(), to.bytes)?;
        either!(self, g => g.upload(from, to.addr))
    }

    /// Copies the start of `from` to `to`, after all that was queued before.
    ///
    /// # Errors
    /// As [`Gpu::upload`]; also those of work queued earlier.
    pub fn download(&self, from: Region, to: &mut [u8]) -> Result<()> {
        fits("a download", to.len(), from.bytes)?;
        either!(self, g => g.download(from.addr, to))
    }

    /// Copies `from` to the start of `to`, on the device.
    ///
    /// # Errors
    /// As [`Gpu::upload`].
    pub fn copy(&self, from: Region, to: Region) -> Result<()> {
        fits("a copy", from.bytes, to.bytes)?;
        either!(self, g => g.copy(from.addr, to.addr, from.bytes))
    }

    /// Sets all bytes to zero.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn clear(&self, region: Region) -> Result<()> {
        either!(self, g => g.clear(region.addr, region.bytes))
    }

    /// A launch of `kernel`.
    ///
    /// # Errors
    /// [`Error::NoKernel`] when the build has none of this name.
    pub fn launch(&self, kernel: &'static str) -> Result<Launch<'_>> {
        let spec: Result<Spec> = either!(self, g => g.spec(kernel));
        Ok(Launch { gpu: self, kernel, spec: spec?, regions: Vec::with_capacity(8) })
    }

    pub(crate) fn run(&self, launch: &Launch, grid: [usize; 3], params: &[u8]) -> Result<()> {
        either!(self, g => g.run(launch, grid, params))
    }

    /// Waits for all queued work.
    ///
    /// # Errors
    /// What any of it ran into.
    pub fn synchronize(&self) -> Result<()> {
        either!(self, g => g.synchronize())
    }

    /// How long the device takes for what `work` queues.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Unsupported`] on the emulator, whose time means nothing.
    pub fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
        either!(self, g => g.time(work))
    }

    /// Records the launches and copies on the device that `work` makes, without running them.
    ///
    /// # Errors
    /// Those of `work`; [`Error::Driver`] when it does what cannot be recorded, such as an allocation.
    pub fn record(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let recording = match self.0 {
            #[cfg(feature = "cuda")]
            Launcher::Cuda(ref g) => Recording::Cuda(g.record(work)?),
            #[cfg(feature = "emulator")]
            Launcher::Emulator(ref g) => Recording::Emulator(g.record(work)?),
        };
        Ok(Graph { gpu: self.clone(), recording })
    }
}

fn fits(what: &'static str, bytes: usize, found: usize) -> Result<()> {
    if bytes > found { Err(Error::Size { what, bytes, found }) } else { Ok(()) }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        either!(self, g => fmt::Display::fmt(g, f))
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({self})")
    }
}

/// Work recorded by [`Gpu::record`], to run again and again with one call (on CUDA, a CUDA graph).
///
/// The memory it touches must live, and keep its addresses, as long as it is run.
pub struct Graph {
    gpu: Gpu,
    recording: Recording,
}

enum Recording {
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::Recording),
    #[cfg(feature = "emulator")]
    Emulator(crate::emulated::Recording),
}

impl Graph {
    /// Queues all of it.
    ///
    /// # Errors
    /// As [`Launch::run`].
    pub fn launch(&self) -> Result<()> {
        match self.recording {
            #[cfg(feature = "cuda")]
            Recording::Cuda(ref r) => r.launch(),
            #[cfg(feature = "emulator")]
            Recording::Emulator(ref r) => match self.gpu.0 {
                Launcher::Emulator(ref g) => g.replay(r),
                #[cfg(feature = "cuda")]
                Launcher::Cuda(_) => Err(Error::Unsupported("a recording of another device")),
            },
        }
    }
}
