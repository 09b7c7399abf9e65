//! [`Gpu`], one type for both launchers, with [`PendingUpload`].
#![cfg_attr(
    not(any(feature = "cuda", feature = "emulator")),
    // Without a launcher `Gpu` has no values, so code after a match on its launcher is unreachable.
    allow(unreachable_code, unused_variables, unused_mut, dead_code)
)]

use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

#[cfg(feature = "cuda")]
use crate::cuda::Cuda;
#[cfg(feature = "emulator")]
use crate::emulated::Emulated;
use crate::gemm::{BlasGemm, GemmBackend};
use crate::{Error, KernelSet, Launch, Memory, Region, Result, Spec};

mod recording;

pub use recording::Graph;
use recording::Noted;

/// An open GPU: a launcher for the kernels, and their memory. Clones share the same device.
#[derive(Clone)]
pub struct Gpu {
    launcher: Launcher,
    /// One entry for each dry run and each recording in progress, with its thread. A thread's work goes into
    /// its last entry.
    noted: Arc<Mutex<Vec<(ThreadId, Noted)>>>,
    gemms: GemmBackend,
}

#[derive(Clone)]
enum Launcher {
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(Arc<Cuda>),
    /// The emulator.
    #[cfg(feature = "emulator")]
    Emulator(Arc<Emulated>),
}

/// Evaluates the same expression for either launcher.
macro_rules! either {
    ($gpu:expr, $launcher:ident => $does:expr) => {
        match $gpu.launcher {
            #[cfg(feature = "cuda")]
            Launcher::Cuda(ref $launcher) => $does,
            #[cfg(feature = "emulator")]
            Launcher::Emulator(ref $launcher) => $does,
        }
    };
}

impl Gpu {
    /// Opens the GPU named `device`: `cuda`, `cuda:1`, `emulator`, or `emulator:` with options separated by commas:
    ///
    /// | option | meaning |
    /// |---|---|
    /// | `reversed` | the threads of a block run in reversed order |
    /// | `shuffled=SEED` | the threads of a block run in a random order |
    /// | `sms=COUNT` | the number of multiprocessors, by which launches divide their work; 4 without it |
    /// | `mma=a100`, `mma=h100` | tensor cores round as those of this GPU do, instead of to nearest |
    /// | `memory=BYTES` | the size of the device memory |
    ///
    /// # Errors
    /// Returns [`Error::Name`] if the name is unknown, [`Error::NoKernels`] if the program was built without
    /// this launcher or its kernels, [`Error::Setting`] if `PHEYE_GEMM` has an invalid value, and an error of
    /// the launcher if the device, its driver or the file named by `PHEYE_KERNELS` cannot be used.
    pub fn open(device: &str) -> Result<Gpu> {
        let (name, option) = device.split_once(':').unwrap_or((device, ""));
        let gemms = GemmBackend::asked(name)?;
        match name {
            #[cfg(feature = "cuda")]
            "cuda" => {
                let cuda = Cuda::open(device, option)?;
                if gemms == GemmBackend::CublasLt {
                    // Fail at once if the library is missing.
                    #[cfg(feature = "cublaslt")]
                    cuda.blas()?;
                }
                Ok(Gpu::new(Launcher::Cuda(Arc::new(cuda)), gemms))
            }
            #[cfg(feature = "emulator")]
            "emulator" => {
                Emulated::open(device, option).map(|e| Gpu::new(Launcher::Emulator(Arc::new(e)), gemms))
            }
            #[allow(unreachable_patterns)] // reachable with both features
            "cuda" | "emulator" => Err(Error::NoKernels {
                device: device.to_owned(),
                reason: format!("it was built without feature `{name}`"),
            }),
            _ => Err(Error::Name(device.to_owned())),
        }
    }

    fn new(launcher: Launcher, gemms: GemmBackend) -> Gpu {
        Gpu { launcher, noted: Arc::default(), gemms }
    }

    /// Whether unfused GEMMs are to use [`Gpu::blas`]: `PHEYE_GEMM` was `cublaslt` when the GPU was opened.
    pub fn prefers_blas(&self) -> bool {
        self.gemms == GemmBackend::CublasLt
    }

    /// Queues a GEMM by cuBLASLt, which is loaded at the first call. Returns `false` and queues nothing if
    /// the library has no algorithm for it.
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`] on the emulator or without feature `cublaslt`, [`Error::Library`] if
    /// the library cannot be loaded, [`Error::Size`] if an operand exceeds its region, [`Error::OtherGpu`] if
    /// a region is on another GPU, and [`Error::Driver`] if a call fails.
    pub fn blas(&self, gemm: &BlasGemm) -> Result<bool> {
        gemm.check()?;
        let regions = [&gemm.a.region, &gemm.b.region, &gemm.c];
        regions.iter().try_for_each(|region| self.own(region))?;
        match self.launcher {
            #[cfg(feature = "cublaslt")]
            Launcher::Cuda(ref g) => {
                let Some(plan) = g.plan(gemm)? else { return Ok(false) };
                if self.note(gemm.fingerprint(), regions.map(Region::memory)) {
                    g.multiply(gemm, &plan)?;
                }
                Ok(true)
            }
            #[allow(unreachable_patterns)] // unreachable only without feature `cublaslt`
            _ => Err(Error::Unsupported("a GEMM by cuBLASLt")),
        }
    }

    /// Whether `other` is this GPU as it was opened here, so that the two share memory and one queue of work.
    pub fn same(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.noted, &other.noted)
    }

    /// Returns an error for memory of another GPU: this one does not order its work with respect to it.
    fn own(&self, region: &Region) -> Result<()> {
        match self.same(region.gpu()) {
            true => Ok(()),
            false => Err(Error::OtherGpu { region: region.to_string(), gpu: self.to_string() }),
        }
    }

    /// The number of multiprocessors.
    pub fn sms(&self) -> usize {
        either!(self, g => g.sms())
    }

    /// Free and total device memory, in bytes.
    ///
    /// # Errors
    /// Returns [`Error::Driver`] if the driver cannot be queried.
    pub fn memory(&self) -> Result<(u64, u64)> {
        either!(self, g => g.memory())
    }

    /// Allocates `bytes` bytes with unspecified contents.
    ///
    /// # Errors
    /// Returns [`Error::OutOfMemory`], or [`Error::Driver`] if the device fails.
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
    /// Returns [`Error::Size`] if `from` is larger than `to`, [`Error::OtherGpu`] if `to` is on another GPU,
    /// [`Error::Unsupported`] in a dry run or recording, and [`Error::Driver`] if the device fails.
    pub fn upload(&self, from: &[u8], to: Region) -> Result<()> {
        self.uploads(from, &to)?;
        either!(self, g => g.upload(from, to.addr()))
    }

    /// Copies `from` to the start of `to` while queued work runs, none of which may use `to`. Later work may
    /// use it after a call of [`PendingUpload::join`].
    ///
    /// # Errors
    /// The same errors as [`Gpu::upload`].
    pub fn upload_ahead(&self, from: &[u8], to: Region) -> Result<PendingUpload> {
        self.uploads(from, &to)?;
        match self.launcher {
            #[cfg(feature = "cuda")]
            Launcher::Cuda(ref g) => {
                let copied = g.upload_ahead(from, to.addr())?;
                Ok(PendingUpload { copied: Some(copied), to })
            }
            #[cfg(feature = "emulator")]
            Launcher::Emulator(ref g) => {
                g.upload(from, to.addr())?;
                Ok(PendingUpload {
                    #[cfg(feature = "cuda")]
                    copied: None,
                    to,
                })
            }
        }
    }

    /// The checks of an upload.
    fn uploads(&self, from: &[u8], to: &Region) -> Result<()> {
        fits("an upload", from.len(), to.bytes())?;
        self.own(to)?;
        self.not_recorded("an upload within recorded work")
    }

    /// Copies the start of `from` to `to`, after all work queued so far.
    ///
    /// # Errors
    /// The same errors as [`Gpu::upload`], and errors of work queued earlier.
    pub fn download(&self, from: Region, to: &mut [u8]) -> Result<()> {
        fits("a download", to.len(), from.bytes())?;
        self.own(&from)?;
        self.not_recorded("a download within recorded work")?;
        either!(self, g => g.download(from.addr(), to))
    }

    /// Copies all of `from` to the start of `to`, on the device.
    ///
    /// # Errors
    /// Returns [`Error::Size`] if `from` is larger than `to`, [`Error::OtherGpu`] if either is on another
    /// GPU, and [`Error::Driver`] if the device fails.
    pub fn copy(&self, from: Region, to: Region) -> Result<()> {
        fits("a copy", from.bytes(), to.bytes())?;
        self.own(&from)?;
        self.own(&to)?;
        let work = ("copy", from.addr(), to.addr(), from.bytes());
        if !self.note(work, [from.memory(), to.memory()]) {
            return Ok(());
        }
        either!(self, g => g.copy(from.addr(), to.addr(), from.bytes()))
    }

    /// Sets all bytes to zero.
    ///
    /// # Errors
    /// Returns [`Error::OtherGpu`] if `region` is on another GPU, and [`Error::Driver`] if the device fails.
    pub fn clear(&self, region: Region) -> Result<()> {
        self.own(&region)?;
        if !self.note(("clear", region.addr(), region.bytes()), [region.memory()]) {
            return Ok(());
        }
        either!(self, g => g.clear(region.addr(), region.bytes()))
    }

    /// Makes the kernels of another crate available on this GPU and all its clones. Loading them again has no
    /// effect.
    ///
    /// # Errors
    /// Returns [`Error::NoKernels`] if that crate was built without kernels for this device, [`Error::Twice`]
    /// if a kernel of the same name is already loaded, and an error of the driver if it cannot load them.
    pub fn load(&self, kernels: &'static KernelSet) -> Result<()> {
        either!(self, g => g.load(kernels))
    }

    /// Prepares a launch of `kernel`, a kernel of this crate or of a crate passed to [`Gpu::load`].
    ///
    /// # Errors
    /// Returns [`Error::NoKernel`] if no loaded crate has it, and an error of the driver if it cannot be
    /// loaded.
    pub fn launch(&self, kernel: &'static str) -> Result<Launch<'_>> {
        let spec: Result<Spec> = either!(self, g => g.spec(kernel));
        Ok(Launch { gpu: self, kernel, spec: spec?, regions: Vec::with_capacity(8) })
    }

    pub(crate) fn run(&self, launch: &Launch, grid: [u32; 3], params: &[u8]) -> Result<()> {
        launch.regions.iter().try_for_each(|(_, region)| self.own(region))?;
        let memory = launch.regions.iter().map(|(_, region)| region.memory());
        if !self.note((launch.kernel, grid, params), memory) {
            return Ok(());
        }
        either!(self, g => g.run(launch, grid, params))
    }

    /// Waits for all queued work.
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`] in a dry run or recording, and [`Error::Driver`] if queued work failed.
    pub fn synchronize(&self) -> Result<()> {
        self.not_recorded("a synchronization within recorded work")?;
        either!(self, g => g.synchronize())
    }

    /// The time that the device takes for the work that `work` queues.
    ///
    /// # Errors
    /// Returns the error of `work`, and [`Error::Unsupported`] on the emulator, whose time is meaningless.
    pub fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
        either!(self, g => g.time(work))
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

/// An upload that runs concurrently with queued work. It keeps its region alive; dropping it is the same as
/// joining it.
pub struct PendingUpload {
    #[cfg(feature = "cuda")]
    copied: Option<crate::cuda::Copied>,
    to: Region,
}

impl PendingUpload {
    /// Makes all work queued from now on wait for the upload.
    ///
    /// # Errors
    /// Returns [`Error::Driver`] if the device fails, and [`Error::Unsupported`] in a recording.
    pub fn join(mut self) -> Result<()> {
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        match self.to.gpu().launcher {
            #[cfg(feature = "cuda")]
            Launcher::Cuda(ref g) => self.copied.take().map_or(Ok(()), |copied| g.join(&copied)),
            #[cfg(feature = "emulator")]
            Launcher::Emulator(_) => Ok(()),
        }
    }
}

impl Drop for PendingUpload {
    fn drop(&mut self) {
        // The memory must not be freed and reused while the copy runs. `drop` cannot return the error; later
        // calls report the same one.
        let _ = self.wait();
    }
}

impl fmt::Debug for PendingUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingUpload(in {})", self.to)
    }
}
