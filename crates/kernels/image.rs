//! The compiled kernels: those that build scripts put inside the program, and a file that replaces some of them.
//!
//! A build script embeds one fatbin for each `.cu`: machine code for several architectures and PTX. While working on a kernel,
//! name a fatbin in `PHEYE_KERNELS`, made by nvcc or `cargo xtask kernels`. It is read when the GPU is opened, and its kernels
//! win over the embedded ones of the same name; so an edit costs a run of nvcc, and none of cargo.

use std::fmt;
use std::path::PathBuf;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use std::sync::{RwLock, RwLockReadGuard};

#[cfg(any(feature = "cuda", feature = "emulator"))]
use crate::{Error, Result};

/// The environment variable that names a fatbin or cubin whose kernels replace those embedded.
pub const REPLACEMENT: &str = "PHEYE_KERNELS";

/// Name, function, and the record `{threads, shared bytes, bytes of parameters, tile[3], hash of the parameters' name}` of a
/// kernel that was compiled for the emulator.
pub(crate) type Emulated = (&'static str, unsafe extern "C" fn(*const u8), &'static [u32; 7]);

/// The kernels of one crate, as `pheye-kernel-build` compiled them; [`include_kernels!`](crate::include_kernels) defines it.
pub struct KernelSet {
    crate_name: &'static str,
    images: &'static [Image],
    missing: &'static str,
    #[cfg_attr(
        not(any(feature = "cuda", feature = "emulator")),
        expect(dead_code, reason = "kept, so that both builds take the same text")
    )]
    emulated: &'static [Emulated],
}

impl KernelSet {
    /// The kernels of `crate_name`; `missing` says why there are no images, and is empty where there are.
    ///
    /// # Safety
    /// The images are whole fatbins. Each entry of `emulated` was compiled for the emulator, takes a pointer to as many bytes as
    /// its record says, and the record is what `KERNEL` makes of it. What `pheye-kernel-build` writes is so.
    #[doc(hidden)]
    pub const unsafe fn new(
        crate_name: &'static str,
        images: &'static [Image],
        missing: &'static str,
        emulated: &'static [Emulated],
    ) -> KernelSet {
        KernelSet { crate_name, images, missing, emulated }
    }

    /// The crate whose kernels they are.
    pub fn crate_name(&self) -> &'static str {
        self.crate_name
    }

    /// All CUDA images of the crate, by source; none if the build had no nvcc.
    pub fn images(&self) -> &'static [Image] {
        self.images
    }

    /// Why there are no CUDA images, as the end of a sentence; `None` if the crate was built by nvcc.
    pub fn missing(&self) -> Option<&'static str> {
        (!self.missing.is_empty()).then_some(self.missing)
    }

    /// The kernels in its images, and those compiled for the emulator.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        let images = self.images.iter().flat_map(|image| image.kernels).copied();
        images.chain(self.emulated.iter().map(|(name, ..)| *name))
    }

    /// Whether any were compiled for the emulator.
    #[cfg(feature = "emulator")]
    pub(crate) fn has_emulated(&self) -> bool {
        !self.emulated.is_empty()
    }

    /// A kernel that was compiled for the emulator.
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

/// The kernels that a GPU can launch: those of this crate, and those of others that were loaded.
#[cfg(any(feature = "cuda", feature = "emulator"))]
pub(crate) struct Sets(RwLock<Vec<&'static KernelSet>>);

#[cfg(any(feature = "cuda", feature = "emulator"))]
impl Sets {
    /// Those of this crate.
    pub(crate) fn own() -> Sets {
        Sets(RwLock::new(vec![&crate::KERNELS]))
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<&'static KernelSet>> {
        self.0.read().unwrap_or_else(|e| e.into_inner())
    }

    /// Adds those of another crate; adding the same twice changes nothing.
    ///
    /// # Errors
    /// [`Error::Twice`] when another crate has a kernel of the same name.
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

    /// What `look` finds in the first crate in which it finds something.
    pub(crate) fn find<T>(&self, kernel: &str, look: impl Fn(&'static KernelSet) -> Option<T>) -> Result<T> {
        let all = self.read();
        all.iter().find_map(|set| look(set)).ok_or_else(|| {
            let crates: Vec<_> = all.iter().map(|set| set.crate_name).collect();
            Error::NoKernel { name: kernel.to_owned(), crates: crates.join(" and ") }
        })
    }
}

/// What nvcc made of one `.cu`.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// The source in its crate's folder of kernels, without its ending: `fused/norm_linear`.
    pub source: &'static str,
    /// The names of its kernels, sorted. One that is written for some architectures only is listed too.
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

    /// A fatbin, as the driver's `cuModuleLoadData` takes it; its address is a multiple of 16.
    pub fn bytes(&self) -> &'static [u8] {
        &self.bytes.0
    }
}

/// The driver reads 8-byte fields, and `include_bytes!` alone promises no alignment.
#[doc(hidden)]
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Aligned<T: ?Sized>(pub T);

/// The bytes of a file on a boundary of 16 bytes.
#[doc(hidden)]
#[macro_export]
macro_rules! include_aligned {
    ($file:literal) => {{
        const BYTES: &$crate::image::Aligned<[u8]> = &$crate::image::Aligned(*include_bytes!($file));
        BYTES
    }};
}

/// Defines `KERNELS`, the [`KernelSet`](crate::KernelSet) of the crate, and the module `params` with the parameter structs of its
/// kernels, from what `pheye_kernel_build::compile` in its build script wrote.
#[macro_export]
macro_rules! include_kernels {
    () => {
        include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
    };
}

/// `PHEYE_KERNELS` names a file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the kernels in {} (named by {REPLACEMENT}): {why}", path.display())]
pub struct Unreadable {
    /// The file as it was named.
    pub path: PathBuf,
    /// What the system said.
    pub why: String,
}

/// The content of the file that `PHEYE_KERNELS` names; `None` if it is not set.
///
/// # Errors
/// [`Unreadable`] with the file's name.
pub fn replacement() -> std::result::Result<Option<Vec<u8>>, Unreadable> {
    let Some(path) = std::env::var_os(REPLACEMENT).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    let read = std::fs::read(&path);
    read.map(Some).map_err(|error| Unreadable { path, why: error.to_string() })
}
