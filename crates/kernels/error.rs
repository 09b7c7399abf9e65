//! The error type of this crate.

/// An error of a GPU, its driver, or a launch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program was built without a launcher or without kernels for this device.
    #[error("device `{device}` was asked for, but this build has no GPU kernels ({reason})")]
    NoKernels {
        /// The requested device.
        device: String,
        /// What the build lacks.
        reason: String,
    },
    /// The device name is unknown.
    #[error(
        "no GPU is called `{0}`; there are cuda, cuda:N, and emulator, also with options, as in emulator:reversed,sms=132; they are reversed, shuffled=SEED, sms=COUNT, mma=a100, mma=h100 and memory=BYTES"
    )]
    Name(String),
    /// The driver's library, libcuda, is not installed.
    #[error("no NVIDIA driver was found (libcuda cannot be loaded)")]
    NoDriver,
    /// The driver has no device with this index.
    #[error("device `cuda:{index}` was asked for, but the driver sees {count} GPUs")]
    NoDevice {
        /// The requested index.
        index: usize,
        /// The number of devices.
        count: usize,
    },
    /// The driver is too old for this program or for its compiled kernels.
    #[error("the NVIDIA driver supports CUDA {found}, the kernels need {needed}; install a newer driver")]
    OldDriver {
        /// The CUDA version that the driver supports.
        found: String,
        /// The CUDA version needed.
        needed: String,
    },
    /// The compute capability of the GPU is too low.
    #[error("{name} has compute capability {found}, the kernels need 8.0 (Ampere) or later")]
    OldCard {
        /// The name of the GPU.
        name: String,
        /// Its compute capability.
        found: String,
    },
    /// No loaded crate has a kernel of this name.
    #[error(
        "no kernel is called `{name}` in this build of {crates}; the kernels of another crate are loaded by Gpu::load"
    )]
    NoKernel {
        /// The name of the kernel.
        name: String,
        /// The crates whose kernels are loaded.
        crates: String,
    },
    /// Two crates have a kernel of the same name.
    #[error("the kernel `{kernel}` is in both {loaded} and {other}; one of them needs another name")]
    Twice {
        /// The name of the kernel.
        kernel: &'static str,
        /// The crate that was loaded first.
        loaded: &'static str,
        /// The other crate.
        other: &'static str,
    },
    /// The file named by `PHEYE_KERNELS` cannot be used.
    #[error("PHEYE_KERNELS={path}: {reason}")]
    Replacement {
        /// The path of the file.
        path: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// An environment variable has an invalid value.
    #[error("{variable}={value}: {reason}")]
    Setting {
        /// The name of the variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// Why it is invalid.
        reason: String,
    },
    /// A shared library is not installed, or lacks a function.
    #[error(
        "{library} cannot be loaded ({reason}); it comes with CUDA, and the loader looks where LD_LIBRARY_PATH says"
    )]
    Library {
        /// The name of the library.
        library: &'static str,
        /// The message of the dynamic loader.
        reason: String,
    },
    /// The launch passes another parameter struct than the kernel takes.
    #[error("kernel `{kernel}` does not take the parameters `{given}`")]
    OtherParams {
        /// The name of the kernel.
        kernel: &'static str,
        /// The name of the struct that was passed.
        given: &'static str,
    },
    /// The kernel's parameter struct and the one in Rust differ in size.
    #[error(
        "kernel `{kernel}` takes {expected} bytes of parameters, the host gives {found}: they were built apart"
    )]
    Params {
        /// The name of the kernel.
        kernel: &'static str,
        /// The bytes that the kernel takes.
        expected: usize,
        /// The bytes that were passed.
        found: usize,
    },
    /// The device has not enough free memory.
    #[error("out of GPU memory: {wanted} bytes more are needed, {free} of {total} are free")]
    OutOfMemory {
        /// The bytes requested.
        wanted: u64,
        /// Bytes free.
        free: u64,
        /// The total bytes of the device.
        total: u64,
    },
    /// An operation does not fit its memory.
    #[error("{what} of {bytes} bytes, but the memory has {found}")]
    Size {
        /// The operation or operand.
        what: &'static str,
        /// The bytes that it needs.
        bytes: usize,
        /// The bytes of the memory.
        found: usize,
    },
    /// Memory of one GPU was passed to another.
    #[error("{region} is memory of another GPU than {gpu}, or of {gpu} opened another time")]
    OtherGpu {
        /// The dtype and shape of the memory.
        region: String,
        /// The GPU that it was passed to.
        gpu: String,
    },
    /// A recording was launched after memory that it uses was freed.
    #[error("a recording uses memory that was given back")]
    Gone,
    /// A launch was refused, or its kernel failed.
    #[error("kernel `{kernel}` with grid {grid:?} on {regions}: {cause}")]
    Launch {
        /// The name of the kernel.
        kernel: &'static str,
        /// Its grid, in blocks.
        grid: [usize; 3],
        /// The dtypes and shapes of its regions.
        regions: String,
        /// The message of the device.
        cause: String,
    },
    /// A call of the driver or of a library failed.
    #[error("{call}: {cause}")]
    Driver {
        /// The function, or the operation in words.
        call: &'static str,
        /// The message of the driver.
        cause: String,
    },
    /// The operation is not possible on this device.
    #[error("{0} is not possible on this device")]
    Unsupported(&'static str),
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
