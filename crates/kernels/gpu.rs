//! One type for both launchers.
#![cfg_attr(
    not(any(feature = "cuda", feature = "emulator")),
    // Without a launcher `Gpu` has no values, and what follows one never runs.
    allow(unreachable_code, unused_variables, unused_mut, dead_code)
)]

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[cfg(feature = "cuda")]
use crate::cuda::Cuda;
#[cfg(feature = "emulator")]
use crate::emulated::Emulated;
use crate::product::{Gemms, Product};
use crate::{Error, Launch, Memory, Region, Result, Spec};

/// An open GPU: a launcher for the kernels, and the memory they work on. Cloning shares it.
#[derive(Clone)]
pub struct Gpu {
    launcher: Launcher,
    /// While rehearsing or recording, what the work so far amounts to.
    rehearsal: Arc<Mutex<Option<Rehearsal>>>,
    gemms: Gemms,
}

#[derive(Default)]
struct Rehearsal {
    hash: DefaultHasher,
    /// Whether the work is also passed on, to be recorded.
    recording: bool,
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

/// Does the same on either launcher.
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
    /// Opens the GPU named `device`: `cuda`, `cuda:1`, `emulator`, `emulator:reversed`, `emulator:shuffled=7`, or
    /// `emulator:memory=1000000`, which has no more bytes than that.
    ///
    /// # Errors
    /// [`Error::NoKernels`] when the program was built without that launcher or its kernels, [`Error::Setting`] when
    /// `PHEYE_GEMM` asks for what there is not, else what the launcher finds.
    pub fn open(device: &str) -> Result<Gpu> {
        let (name, option) = device.split_once(':').unwrap_or((device, ""));
        let gemms = Gemms::asked(name)?;
        match name {
            #[cfg(feature = "cuda")]
            "cuda" => {
                let cuda = Cuda::open(device, option)?;
                if gemms == Gemms::CublasLt {
                    // A library that is missing is to be missed now.
                    #[cfg(feature = "cublaslt")]
                    cuda.blas()?;
                }
                Ok(Gpu::new(Launcher::Cuda(Arc::new(cuda)), gemms))
            }
            #[cfg(feature = "emulator")]
            "emulator" => {
                Emulated::open(device, option).map(|e| Gpu::new(Launcher::Emulator(Arc::new(e)), gemms))
            }
            #[allow(unreachable_patterns)] // with both features
            "cuda" | "emulator" => Err(Error::NoKernels {
                device: device.to_owned(),
                reason: format!("it was built without feature `{name}`"),
            }),
            _ => Err(Error::Name(device.to_owned())),
        }
    }

    fn new(launcher: Launcher, gemms: Gemms) -> Gpu {
        Gpu { launcher, rehearsal: Arc::default(), gemms }
    }

    /// Whether plain products are to go to [`Gpu::blas`]: `PHEYE_GEMM=cublaslt` when the GPU was opened.
    pub fn prefers_blas(&self) -> bool {
        self.gemms == Gemms::CublasLt
    }

    /// Queues a product by cuBLASLt, loaded at the first call. `false` if it has no algorithm for it; nothing is done then.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on the emulator and without feature `cublaslt`, [`Error::Library`] when it cannot be loaded,
    /// [`Error::Size`] when an operand is outside its region, [`Error::Driver`] when a call fails.
    pub fn blas(&self, product: &Product) -> Result<bool> {
        product.check()?;
        match self.launcher {
            #[cfg(feature = "cublaslt")]
            Launcher::Cuda(ref g) => {
                let Some(plan) = g.plan(product)? else { return Ok(false) };
                if self.note(product.fingerprint()) {
                    g.multiply(product, &plan)?;
                }
                Ok(true)
            }
            #[allow(unreachable_patterns)] // with cuda alone
            _ => Err(Error::Unsupported("a product by cuBLASLt")),
        }
    }

    /// Notes a piece of work when rehearsing; whether it is also to be done.
    fn note(&self, work: impl Hash) -> bool {
        let mut rehearsal = self.rehearsal.lock().unwrap_or_else(|e| e.into_inner());
        let Some(r) = &mut *rehearsal else { return true };
        work.hash(&mut r.hash);
        r.recording
    }

    fn not_recorded(&self, what: &'static str) -> Result<()> {
        match *self.rehearsal.lock().unwrap_or_else(|e| e.into_inner()) {
            Some(_) => Err(Error::Unsupported(what)),
            None => Ok(()),
        }
    }

    /// Does `work` with all launches, copies and clears left out, and gives a fingerprint of them: work of the same fingerprint
    /// is the same, to the addresses and values of its parameters. Uploads and downloads are errors meanwhile.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn rehearse<T, E>(
        &self,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<(T, u64), E> {
        self.noting(false, work)
    }

    fn noting<T, E>(
        &self,
        recording: bool,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<(T, u64), E> {
        /// Ends the rehearsal, also when `work` panics.
        struct End<'a>(&'a Mutex<Option<Rehearsal>>);
        impl End<'_> {
            fn noted(&self) -> Rehearsal {
                self.0.lock().unwrap_or_else(|e| e.into_inner()).take().unwrap_or_default()
            }
        }
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.noted();
            }
        }
        let end = End(&self.rehearsal);
        let begun = Rehearsal { recording, ..Rehearsal::default() };
        *end.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(begun);
        let value = work()?;
        Ok((value, end.noted().hash.finish()))
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
        self.not_recorded("an upload within recorded work")?;
        either!(self, g => g.upload(from, to.addr))
    }

    /// Copies `from` to the start of `to` while queued work runs, none of which may use `to`. Later work may use it once
    /// [`Arrival::join`] was called.
    ///
    /// # Errors
    /// As [`Gpu::upload`].
    pub fn upload_ahead(&self, from: &[u8], to: Region) -> Result<Arrival> {
        fits("an upload", from.len(), to.bytes)?;
        self.not_recorded("an upload within recorded work")?;
        match self.launcher {
            #[cfg(feature = "cuda")]
            Launcher::Cuda(ref g) => {
                Ok(Arrival { gpu: self.clone(), copied: Some(g.upload_ahead(from, to.addr)?) })
            }
            #[cfg(feature = "emulator")]
            Launcher::Emulator(ref g) => {
                g.upload(from, to.addr)?;
                Ok(Arrival {
                    gpu: self.clone(),
                    #[cfg(feature = "cuda")]
                    copied: None,
                })
            }
        }
    }

    /// Copies the start of `from` to `to`, after all that was queued before.
    ///
    /// # Errors
    /// As [`Gpu::upload`]; also those of work queued earlier.
    pub fn download(&self, from: Region, to: &mut [u8]) -> Result<()> {
        fits("a download", to.len(), from.bytes)?;
        self.not_recorded("a download within recorded work")?;
        either!(self, g => g.download(from.addr, to))
    }

    /// Copies `from` to the start of `to`, on the device.
    ///
    /// # Errors
    /// As [`Gpu::upload`].
    pub fn copy(&self, from: Region, to: Region) -> Result<()> {
        fits("a copy", from.bytes, to.bytes)?;
        if !self.note(("copy", from.addr, to.addr, from.bytes)) {
            return Ok(());
        }
        either!(self, g => g.copy(from.addr, to.addr, from.bytes))
    }

    /// Sets all bytes to zero.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn clear(&self, region: Region) -> Result<()> {
        if !self.note(("clear", region.addr, region.bytes)) {
            return Ok(());
        }
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
        if !self.note((launch.kernel, grid, params)) {
            return Ok(());
        }
        either!(self, g => g.run(launch, grid, params))
    }

    /// Waits for all queued work.
    ///
    /// # Errors
    /// What any of it ran into.
    pub fn synchronize(&self) -> Result<()> {
        self.not_recorded("a synchronization within recorded work")?;
        either!(self, g => g.synchronize())
    }

    /// How long the device takes for what `work` queues.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Unsupported`] on the emulator, whose time means nothing.
    pub fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
        either!(self, g => g.time(work))
    }

    /// Records the launches, copies and clears that `work` makes, without running them, and fingerprints them as
    /// [`Gpu::rehearse`] does.
    ///
    /// # Errors
    /// Those of `work`; [`Error::Unsupported`] when it uploads, downloads or waits.
    pub fn record<T, E: From<Error>>(
        &self,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<(T, Graph), E> {
        let (mut work, mut outcome) = (Some(work), None);
        let mut noted = || -> Result<()> {
            outcome = work.take().map(|work| self.noting(true, work));
            Ok(())
        };
        let recording: Result<Recording> = match self.launcher {
            #[cfg(feature = "cuda")]
            Launcher::Cuda(ref g) => g.record(&mut noted).map(Recording::Cuda),
            #[cfg(feature = "emulator")]
            Launcher::Emulator(ref g) => g.record(&mut noted).map(Recording::Emulator),
        };
        let (value, fingerprint) = match outcome {
            Some(outcome) => outcome?,
            None => return Err(recording.err().unwrap_or(Error::Unsupported("recording")).into()),
        };
        Ok((value, Graph { gpu: self.clone(), recording: recording?, fingerprint }))
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

/// An upload under way beside queued work.
pub struct Arrival {
    gpu: Gpu,
    #[cfg(feature = "cuda")]
    copied: Option<crate::cuda::Copied>,
}

impl Arrival {
    /// Lets work that is queued from now on wait for the upload.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn join(&self) -> Result<()> {
        match self.gpu.launcher {
            #[cfg(feature = "cuda")]
            Launcher::Cuda(ref g) => self.copied.as_ref().map_or(Ok(()), |copied| g.join(copied)),
            #[cfg(feature = "emulator")]
            Launcher::Emulator(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arrival(on {})", self.gpu)
    }
}

/// Work recorded by [`Gpu::record`], to run again and again with one call (on CUDA, a CUDA graph).
///
/// The memory it touches must live, and keep its addresses, as long as it is run.
pub struct Graph {
    #[cfg_attr(not(feature = "emulator"), allow(dead_code))] // a recording on CUDA knows its own
    gpu: Gpu,
    recording: Recording,
    fingerprint: u64,
}

enum Recording {
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::Recording),
    #[cfg(feature = "emulator")]
    Emulator(crate::emulated::Recording),
}

impl Graph {
    /// The fingerprint of the recorded work.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Queues all of it.
    ///
    /// # Errors
    /// As [`Launch::run`].
    pub fn launch(&self) -> Result<()> {
        match self.recording {
            #[cfg(feature = "cuda")]
            Recording::Cuda(ref r) => r.launch(),
            #[cfg(feature = "emulator")]
            Recording::Emulator(ref r) => match self.gpu.launcher {
                Launcher::Emulator(ref g) => g.replay(r),
                #[cfg(feature = "cuda")]
                Launcher::Cuda(_) => Err(Error::Unsupported("a recording of another device")),
            },
        }
    }
}
