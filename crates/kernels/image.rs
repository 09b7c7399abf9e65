//! The compiled kernels: those inside this program, and a file that replaces some of them.
//!
//! build.rs embeds one fatbin for each `.cu`: machine code for several architectures and PTX. While working on a kernel, name
//! a fatbin in `PHEYE_KERNELS`, made by nvcc or `cargo xtask kernels`. It is read when the GPU is opened, and its kernels win
//! over the embedded ones of the same name; so an edit costs a run of nvcc, and none of cargo.

use std::path::PathBuf;

/// The environment variable that names a fatbin or cubin whose kernels replace those embedded.
pub const REPLACEMENT: &str = "PHEYE_KERNELS";

/// What nvcc made of one `.cu`.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// The source under `kernels/`, without its ending: `fused/norm_linear`.
    pub source: &'static str,
    /// The names of its kernels, sorted. One that is written for some architectures only is listed too.
    pub kernels: &'static [&'static str],
    bytes: &'static Aligned<[u8]>,
}

impl Image {
    /// A fatbin, as the driver's `cuModuleLoadData` takes it; its address is a multiple of 16.
    pub fn bytes(&self) -> &'static [u8] {
        &self.bytes.0
    }
}

#[derive(Debug)]
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

// `IMAGES`, and `MISSING`: why there are none.
include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// All images in this program, by source; none if the build had no nvcc.
pub fn images() -> &'static [Image] {
    IMAGES
}

/// Why this program holds no CUDA kernels, as the end of a sentence; `None` if it was built by nvcc.
pub fn missing() -> Option<&'static str> {
    (!MISSING.is_empty()).then_some(MISSING)
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
pub fn replacement() -> Result<Option<Vec<u8>>, Unreadable> {
    let Some(path) = std::env::var_os(REPLACEMENT).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    let read = std::fs::read(&path);
    read.map(Some).map_err(|error| Unreadable { path, why: error.to_string() })
}
