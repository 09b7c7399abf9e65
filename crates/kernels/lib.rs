//! The GPU behind Pheye: the kernels, how they are launched, and what can go wrong.
//!
//! This build holds no kernels yet, so [`Gpu`] has no values: code that matches on
//! `Device::Gpu(gpu)` compiles, and can never run.

/// Why a GPU could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program was built without GPU kernels.
    #[error("device `{device}` was asked for, but this build has no GPU kernels; use `--device cpu`")]
    NoKernels {
        /// The device as named by the caller.
        device: String,
    },
}

/// An open GPU: a launcher for the kernels, and the memory they work on.
#[derive(Debug, Clone)]
pub enum Gpu {}

impl Gpu {
    /// Opens the GPU named `device`, such as `cuda` or `cuda:1`.
    ///
    /// # Errors
    /// [`Error::NoKernels`] when the program holds no kernels.
    pub fn open(device: &str) -> Result<Gpu, Error> {
        Err(Error::NoKernels { device: device.to_owned() })
    }
}
