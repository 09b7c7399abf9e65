//! The compiled kernels: those that build scripts embed in the program, and a file that replaces some of
//! them.
//!
//! A build script embeds one fatbin for each `.cu`: machine code for several architectures, and PTX. To work
//! on a kernel without running cargo after each edit, set `PHEYE_KERNELS` to a fatbin made by nvcc or
//! `cargo xtask kernels`. It is read when the GPU is opened, and its kernels replace the embedded ones of the
//! same name.

use std::fmt;
use std::path::PathBuf;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use std::sync::{RwLock, RwLockReadGuard};

#[cfg(any(feature = "cuda", feature = "emulator"))]
use crate::{Error, Result};

/// The environment variable that names a fatbin or cubin whose kernels replace the embedded ones.
pub const REPLACEMENT: &str = "PHEYE_KERNELS";

/// A kernel compiled for the emulator: its name, its function, and its record (`KernelSpec` in `launch.cuh`)
/// as u32 words: threads, bytes of shared memory, bytes of parameters, three tile sizes, and the hash of the
/// parameter struct's name.
pub(crate) type Emulated = (&'static str, unsafe extern "C" fn(*const u8), &'static [u32; 7]);

/// The kernels of one crate, compiled by `pheye-kernel-build`. [`include_kernels!`](crate::include_kernels)
/// defines it as a constant.
pub struct KernelSet {
    crate_name: &'static str,
    images: &'static [Image],
    archs: &'static [&'static str],
    missing: &'static str,
    #[cfg_attr(
        not(any(feature = "cuda", feature = "emulator")),
        expect(dead_code, reason = "kept, so that both builds take the same text")
    )]
    emulated: &'static [Emulated],
}

impl KernelSet {
    /// The kernels of `crate_name`, compiled for `archs`. `missing` says why there are no images, and is empty if there are.
    ///
    /// # Safety
    /// Each image must be a complete fatbin. Each function in `emulated` must have been compiled for the
    /// emulator and take a pointer to as many bytes of parameters as its record says, and the record must be
    /// the one that `KERNEL` defines. The code that `pheye-kernel-build` generates meets this.
    #[doc(hidden)]
    pub const unsafe fn new(
        crate_name: &'static str,
        images: &'static [Image],
        archs: &'static [&'static str],
        missing: &'static str,
        emulated: &'static [Emulated],
    ) -> KernelSet {
        KernelSet { crate_name, images, archs, missing, emulated }
    }

    /// The name of the crate.
    pub fn crate_name(&self) -> &'static str {
        self.crate_name
    }

    /// All CUDA images of the crate, one for each source; empty if the crate was built without nvcc.
    pub fn images(&self) -> &'static [Image] {
        self.images
    }

    /// The architectures that its images have code for, such as `90a`, or `compute_120` for PTX.
    pub fn archs(&self) -> &'static [&'static str] {
        self.archs
    }

    /// The reason why there are no CUDA images, as the end of a sentence; `None` if the crate was compiled by
    /// nvcc.
    pub fn missing(&self) -> Option<&'static str> {
        (!self.missing.is_empty()).then_some(self.missing)
    }

    /// The names of the kernels in its images, then of those compiled for the emulator.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        let images = self.images.iter().flat_map(|image| image.kernels).copied();
        images.chain(self.emulated.iter().map(|(name, ..)| *name))
    }

    /// Whether any kernels were compiled for the emulator.
    #[cfg(feature = "emulator")]
    pub(crate) fn has_emulated(&self) -> bool {
        !self.emulated.is_empty()
    }

    /// The kernel of this name that was compiled for the emulator.
    #[cfg(feature = "emulator")]
    pub(crate) fn emulated(&self, kernel: &str) -> Option<&'static Emulated> {
        self.emulated.iter().find(|(name, ..)| *name == kernel)
    }
}

impl fmt::Debug for KernelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KernelSet({})", self.crate_name)
    }
}

/// The kernels that a GPU can launch: those of this crate, and those of the crates passed to
/// [`Gpu::load`](crate::Gpu::load).
#[cfg(any(feature = "cuda", feature = "emulator"))]
pub(crate) struct Sets(RwLock<Vec<&'static KernelSet>>);

#[cfg(any(feature = "cuda", feature = "emulator"))]
impl Sets {
    /// The kernels of this crate.
    pub(crate) fn own() -> Sets {
        Sets(RwLock::new(vec![&crate::KERNELS]))
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<&'static KernelSet>> {
        self.0.read().unwrap_or_else(|e| e.into_inner())
    }

    /// Adds the kernels of another crate. Adding the same set again has no effect.
    ///
    /// # Errors
    /// Returns [`Error::Twice`] if a set that was added before has a kernel of the same name.
    pub(crate) fn add(&self, set: &'static KernelSet) -> Result<()> {
        let mut all = self.0.write().unwrap_or_else(|e| e.into_inner());
        if all.iter().any(|known| std::ptr::eq(*known, set)) {
            return Ok(());
        }
        for known in all.iter() {
            if let Some(kernel) = set.names().find(|name| known.names().any(|other| other == *name)) {
                let (loaded, other) = (known.crate_name, set.crate_name);
                return Err(Error::Twice { kernel, loaded, other });
            }
        }
        all.push(set);
        Ok(())
    }

    /// The first `Some` that `look` returns, over the sets in the order in which they were added. Returns
    /// [`Error::NoKernel`] if there is none.
    pub(crate) fn find<T>(&self, kernel: &str, look: impl Fn(&'static KernelSet) -> Option<T>) -> Result<T> {
        let all = self.read();
        all.iter().find_map(|set| look(set)).ok_or_else(|| {
            let crates: Vec<_> = all.iter().map(|set| set.crate_name).collect();
            Error::NoKernel { name: kernel.to_owned(), crates: crates.join(" and ") }
        })
    }
}

/// The compiled fatbin of one `.cu`.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// The path of the source in its crate's kernel folder, without its extension: `fused/norm_linear`.
    pub source: &'static str,
    /// The names of its kernels, sorted, including those that are compiled for some architectures only.
    pub kernels: &'static [&'static str],
    bytes: &'static Aligned<[u8]>,
}

impl Image {
    #[doc(hidden)]
    pub const fn new(
        source: &'static str,
        bytes: &'static Aligned<[u8]>,
        kernels: &'static [&'static str],
    ) -> Image {
        Image { source, kernels, bytes }
    }

    /// The fatbin, as the driver's `cuModuleLoadData` takes it. Its address is a multiple of 16.
    pub fn bytes(&self) -> &'static [u8] {
        &self.bytes.0
    }
}

/// Aligns embedded bytes to 16: the driver reads 8-byte fields, and `include_bytes!` alone guarantees no
/// alignment.
#[doc(hidden)]
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Aligned<T: ?Sized>(pub T);

/// The bytes of a file, aligned to 16 bytes.
#[doc(hidden)]
#[macro_export]
macro_rules! include_aligned {
    ($file:literal) => {{
        const BYTES: &$crate::image::Aligned<[u8]> = &$crate::image::Aligned(*include_bytes!($file));
        BYTES
    }};
}

/// Defines the constant `KERNELS`, the [`KernelSet`](crate::KernelSet) of the crate, and the module `params`
/// with the parameter structs of its kernels. The crate's build script must have called
/// `pheye_kernel_build::compile`.
#[macro_export]
macro_rules! include_kernels {
    () => {
        include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
    };
}

/// The file that `PHEYE_KERNELS` names cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the kernels in {} (named by {REPLACEMENT}): {why}", path.display())]
pub struct Unreadable {
    /// The path as given.
    pub path: PathBuf,
    /// The message of the operating system.
    pub why: String,
}

/// The contents of the file that `PHEYE_KERNELS` names; `None` if the variable is unset or empty.
///
/// # Errors
/// Returns [`Unreadable`] if the file cannot be read.
pub fn replacement() -> std::result::Result<Option<Vec<u8>>, Unreadable> {
    let Some(path) = std::env::var_os(REPLACEMENT).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    let read = std::fs::read(&path);
    read.map(Some).map_err(|error| Unreadable { path, why: error.to_string() })
}
