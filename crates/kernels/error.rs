//! What can go wrong on a GPU, each error with the device, kernel or file that it is about.

/// What can go wrong on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program was built without a launcher for this device.
    #[error("device `{device}` was asked for, but this build has no GPU kernels ({reason})")]
    NoKernels {
        /// The device as named by the caller.
        device: String,
        /// What was missing.
        reason: String,
    },
    /// No device has this name.
    #[error(
        "no GPU is called `{0}`; there are cuda, cuda:N, emulator, emulator:reversed, emulator:shuffled=SEED and emulator:memory=BYTES"
    )]
    Name(String),
    /// The driver's library is not there.
    #[error("no NVIDIA driver was found (libcuda cannot be loaded)")]
    NoDriver,
    /// There are fewer devices.
    #[error("device `cuda:{index}` was asked for, but the driver sees {count} GPUs")]
    NoDevice {
        /// The one asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The driver cannot load what the program holds.
    #[error("the NVIDIA driver supports CUDA {found}, the kernels need {needed}; install a newer driver")]
    OldDriver {
        /// Version of the driver.
        found: String,
        /// Version needed.
        needed: String,
    },
    /// The card is too old.
    #[error("{name} has compute capability {found}, the kernels need 8.0 (Ampere) or later")]
    OldCard {
        /// Name of the card.
        name: String,
        /// Its compute capability.
        found: String,
    },
    /// None of the crates whose kernels are loaded has one of this name.
    #[error(
        "no kernel is called `{name}` in this build of {crates}; the kernels of another crate are loaded by Gpu::load"
    )]
    NoKernel {
        /// The kernel.
        name: String,
        /// The crates whose kernels are loaded.
        crates: String,
    },
    /// Two crates have a kernel of one name.
    #[error("the kernel `{kernel}` is in both {loaded} and {other}; one of them needs another name")]
    Twice {
        /// The kernel.
        kernel: &'static str,
        /// The crate that was loaded first.
        loaded: &'static str,
        /// The other one.
        other: &'static str,
    },
    /// The file named by `PHEYE_KERNELS` cannot be used.
    #[error("PHEYE_KERNELS={path}: {reason}")]
    Replacement {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An environment variable has a value that cannot be used.
    #[error("{variable}={value}: {reason}")]
    Setting {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A library that was asked for is not there, or lacks a function.
    #[error(
        "{library} cannot be loaded ({reason}); it comes with CUDA, and the loader looks where LD_LIBRARY_PATH says"
    )]
    Library {
        /// The library.
        library: &'static str,
        /// What the loader says.
        reason: String,
    },
    /// The host gives another struct than the kernel takes.
    #[error("kernel `{kernel}` does not take the parameters `{given}`")]
    OtherParams {
        /// The kernel.
        kernel: &'static str,
        /// The struct that the host gives.
        given: &'static str,
    },
    /// Host and kernel disagree about the size of the parameters.
    #[error(
        "kernel `{kernel}` takes {expected} bytes of parameters, the host gives {found}: they were built apart"
    )]
    Params {
        /// The kernel.
        kernel: &'static str,
        /// By the kernel.
        expected: usize,
        /// By the host.
        found: usize,
    },
    /// The device has too little memory left.
    #[error("out of GPU memory: {wanted} bytes more are needed, {free} of {total} are free")]
    OutOfMemory {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes free.
        free: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A copy or fill outside its memory.
    #[error("{what} of {bytes} bytes, but the memory has {found}")]
    Size {
        /// What was tried.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The size of the memory.
        found: usize,
    },
    /// Memory of one GPU was given to another.
    #[error("{region} is memory of another GPU than {gpu}, or of {gpu} opened another time")]
    OtherGpu {
        /// Type and shape of what was given.
        region: String,
        /// Whom it was given.
        gpu: String,
    },
    /// A recording was to run after memory that it uses was given back.
    #[error("a recording uses memory that was given back")]
    Gone,
    /// A launch was refused or failed.
    #[error("kernel `{kernel}` with grid {grid:?} on {regions}: {cause}")]
    Launch {
        /// The kernel.
        kernel: &'static str,
        /// Its grid.
        grid: [usize; 3],
        /// Types and shapes of what it was given.
        regions: String,
        /// What the device says.
        cause: String,
    },
    /// A call of the driver failed.
    #[error("{call}: {cause}")]
    Driver {
        /// What was tried.
        call: &'static str,
        /// What the driver says.
        cause: String,
    },
    /// Not possible on this device.
    #[error("{0} is not possible on this device")]
    Unsupported(&'static str),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
