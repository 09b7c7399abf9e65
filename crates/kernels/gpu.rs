//! One type for both launchers.
#![cfg_attr(
    not(any(feature = "cuda", feature = "emulator")),
    // Without a launcher `Gpu` has no values, and what follows one never runs.
    allow(unreachable_code, unused_variables, unused_mut, dead_code)
)]

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

#[cfg(feature = "cuda")]
use crate::cuda::Cuda;
#[cfg(feature = "emulator")]
use crate::emulated::Emulated;
use crate::memory::Allocation;
use crate::product::{BlasGemm, GemmBackend};
use crate::{Error, KernelSet, Launch, Memory, Region, Result, Spec};

/// An open GPU: a launcher for the kernels, and the memory they work on. Cloning shares it.
#[derive(Clone)]
pub struct Gpu {
    launcher: Launcher,
    /// Of each thread that rehearses or records, what its work so far amounts to; the last of a thread counts.
    noted: Arc<Mutex<Vec<(ThreadId, Noted)>>>,
    gemms: GemmBackend,
}

#[derive(Default)]
struct Noted {
    hash: DefaultHasher,
    /// Whether the work is also passed on, to be recorded.
    recording: bool,
    /// What recorded work uses.
    memory: Vec<Weak<Allocation>>,
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
        let gemms = GemmBackend::asked(name)?;
        match name {
            #[cfg(feature = "cuda")]
            "cuda" => {
                let cuda = Cuda::open(device, option)?;
                if gemms == GemmBackend::CublasLt {
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

    fn new(launcher: Launcher, gemms: GemmBackend) -> Gpu {
        Gpu { launcher, noted: Arc::default(), gemms }
    }

    /// Whether plain products are to go to [`Gpu::blas`]: `PHEYE_GEMM=cublaslt` when the GPU was opened.
    pub fn prefers_blas(&self) -> bool {
        self.gemms == GemmBackend::CublasLt
    }

    /// Queues a product by cuBLASLt, loaded at the first call. `false` if it has no algorithm for it; nothing is done then.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on the emulator and without feature `cublaslt`, [`Error::Library`] when it cannot be loaded,
    /// [`Error::Size`] when an operand is outside its region, [`Error::Driver`] when a call fails.
    pub fn blas(&self, product: &BlasGemm) -> Result<bool> {
        product.check()?;
        let regions = [&product.a.region, &product.b.region, &product.c];
        regions.iter().try_for_each(|region| self.own(region))?;
        match self.launcher {
            #[cfg(feature = "cublaslt")]
            Launcher::Cuda(ref g) => {
                let Some(plan) = g.plan(product)? else { return Ok(false) };
                if self.note(product.fingerprint(), regions.map(Region::memory)) {
                    g.multiply(product, &plan)?;
                }
                Ok(true)
            }
            #[allow(unreachable_patterns)] // with cuda alone
            _ => Err(Error::Unsupported("a product by cuBLASLt")),
        }
    }

    /// Refuses memory of another GPU, which this one does not keep in the order of its work.
    fn own(&self, region: &Region) -> Result<()> {
        match Arc::ptr_eq(&self.noted, &region.gpu().noted) {
            true => Ok(()),
            false => Err(Error::OtherGpu { region: region.to_string(), gpu: self.to_string() }),
        }
    }

    /// A thread that panicked leaves the list whole: every change is one call.
    fn lock(&self) -> MutexGuard<'_, Vec<(ThreadId, Noted)>> {
        self.noted.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Notes a piece of work on `memory` when this thread rehearses or records; whether it is also to be done.
    fn note(&self, work: impl Hash, memory: impl IntoIterator<Item = Weak<Allocation>>) -> bool {
        let mut all = self.lock();
        let mine = all.iter_mut().rfind(|(thread, _)| *thread == thread::current().id());
        let Some((_, noted)) = mine else { return true };
        work.hash(&mut noted.hash);
        for memory in memory {
            // Other memory may come to lie at the same address.
            memory.as_ptr().hash(&mut noted.hash);
            if noted.recording {
                noted.memory.push(memory);
            }
        }
        noted.recording
    }

    fn not_recorded(&self, what: &'static str) -> Result<()> {
        match self.lock().iter().any(|(thread, _)| *thread == thread::current().id()) {
            true => Err(Error::Unsupported(what)),
            false => Ok(()),
        }
    }

    /// Does `work` with all launches, copies and clears of this thread left out, and gives a fingerprint of them: work of the same
    /// fingerprint is the same, to the addresses and values of its parameters. Uploads and downloads are errors meanwhile.
    /// What other threads do is theirs, and is done.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn dry_run<T, E>(
        &self,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<(T, u64), E> {
        self.noting(false, work).map(|(value, noted)| (value, noted.hash.finish()))
    }

    fn noting<T, E>(
        &self,
        recording: bool,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<(T, Noted), E> {
        /// Ends it, also when `work` panics.
        struct End<'a>(&'a Gpu, ThreadId);
        impl End<'_> {
            fn noted(&self) -> Option<Noted> {
                let mut all = self.0.lock();
                let mine = all.iter().rposition(|(thread, _)| *thread == self.1)?;
                Some(all.remove(mine).1)
            }
        }
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.noted();
            }
        }
        let end = End(self, thread::current().id());
        self.lock().push((end.1, Noted { recording, ..Noted::default() }));
        let value = work()?;
        let noted = end.noted().unwrap_or_default();
        std::mem::forget(end);
        Ok((value, noted))
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
    /// [`Error::Size`] when it does not fit, [`Error::OtherGpu`] for memory of another, [`Error::Driver`] when the device fails.
    pub fn upload(&self, from: &[u8], to: Region) -> Result<()> {
        self.uploads(from, &to)?;
        either!(self, g => g.upload(from, to.addr()))
    }

    /// Copies `from` to the start of `to` while queued work runs, none of which may use `to`. Later work may use it once
    /// [`PendingUpload::join`] was called.
    ///
    /// # Errors
    /// As [`Gpu::upload`].
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

    /// What an upload needs.
    fn uploads(&self, from: &[u8], to: &Region) -> Result<()> {
        fits("an upload", from.len(), to.bytes())?;
        self.own(to)?;
        self.not_recorded("an upload within recorded work")
    }

    /// Copies the start of `from` to `to`, after all that was queued before.
    ///
    /// # Errors
    /// As [`Gpu::upload`]; also those of work queued earlier.
    pub fn download(&self, from: Region, to: &mut [u8]) -> Result<()> {
        fits("a download", to.len(), from.bytes())?;
        self.own(&from)?;
        self.not_recorded("a download within recorded work")?;
        either!(self, g => g.download(from.addr(), to))
    }

    /// Copies `from` to the start of `to`, on the device.
    ///
    /// # Errors
    /// As [`Gpu::upload`].
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
    /// [`Error::OtherGpu`], [`Error::Driver`].
    pub fn clear(&self, region: Region) -> Result<()> {
        self.own(&region)?;
        if !self.note(("clear", region.addr(), region.bytes()), [region.memory()]) {
            return Ok(());
        }
        either!(self, g => g.clear(region.addr(), region.bytes()))
    }

    /// Makes the kernels of another crate launchable, on this GPU and all its clones. Loading them again changes nothing.
    ///
    /// # Errors
    /// [`Error::NoKernels`] when that crate was built without kernels for this device, [`Error::Twice`] when one of them has
    /// the name of a kernel that is loaded already, and what the driver says.
    pub fn load(&self, kernels: &'static KernelSet) -> Result<()> {
        either!(self, g => g.load(kernels))
    }

    /// A launch of `kernel`, one of this crate or of a crate that was [loaded](Gpu::load).
    ///
    /// # Errors
    /// [`Error::NoKernel`] when there is none of this name.
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

    /// Records the launches, copies and clears that `work` makes on this thread, without running them, and fingerprints them as
    /// [`Gpu::dry_run`] does. On CUDA other threads that queue work wait for the end, so `work` must not wait for them.
    ///
    /// # Errors
    /// Those of `work`; [`Error::Unsupported`] when it uploads, downloads, waits or records.
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
        let (value, Noted { hash, mut memory, .. }) = match outcome {
            Some(outcome) => outcome?,
            None => return Err(recording.err().unwrap_or(Error::Unsupported("recording")).into()),
        };
        memory.sort_unstable_by_key(Weak::as_ptr);
        memory.dedup_by(|a, b| a.ptr_eq(b));
        let fingerprint = hash.finish();
        Ok((value, Graph { gpu: self.clone(), recording: recording?, fingerprint, memory }))
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

/// An upload under way beside queued work. It keeps the memory alive; dropped, it is as if joined.
pub struct PendingUpload {
    #[cfg(feature = "cuda")]
    copied: Option<crate::cuda::Copied>,
    to: Region,
}

impl PendingUpload {
    /// Lets work that is queued from now on wait for the upload.
    ///
    /// # Errors
    /// [`Error::Driver`].
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
        // So that the memory is not given back, to be used for something else, while the copy is under way. Nobody is left to act
        // on a failure; it repeats one that later calls report.
        let _ = self.wait();
    }
}

impl fmt::Debug for PendingUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingUpload(in {})", self.to)
    }
}

/// Work recorded by [`Gpu::record`], to run again and again with one call (on CUDA, a CUDA graph).
///
/// It does not keep the memory alive that it uses, and cannot be launched once some of it was given back.
pub struct Graph {
    gpu: Gpu,
    recording: Recording,
    fingerprint: u64,
    memory: Vec<Weak<Allocation>>,
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
    /// [`Error::Gone`] when memory that it uses was given back; else as [`Launch::run`].
    pub fn launch(&self) -> Result<()> {
        // Alive until all is queued.
        let memory: Option<Vec<_>> = self.memory.iter().map(Weak::upgrade).collect();
        let _memory = memory.ok_or(Error::Gone)?;
        if !self.gpu.note(("graph", self.fingerprint), self.memory.iter().cloned()) {
            return Ok(());
        }
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
