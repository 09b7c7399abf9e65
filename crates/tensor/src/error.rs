//! The error type of this crate.

use crate::{DType, Shape};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error about a tensor, a device or its memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The element type is not the expected one.
    #[error("tensor {shape} holds {found}, {expected} is needed")]
    DType {
        /// Shape of the tensor.
        shape: Shape,
        /// Element type of the tensor.
        found: DType,
        /// The expected element type.
        expected: DType,
    },
    /// The tensor shares its buffer with others, so it cannot be written in place.
    #[error("tensor {shape} is shared and cannot be written in place")]
    Shared {
        /// Shape of the tensor.
        shape: Shape,
    },
    /// A view or reshape does not fit its tensor.
    #[error("a view of shape {view} at element {start} does not fit a tensor of shape {shape}")]
    View {
        /// Shape of the tensor.
        shape: Shape,
        /// The requested shape.
        view: Shape,
        /// The first element requested.
        start: usize,
    },
    /// The number of values does not match the shape.
    #[error("{len} values cannot fill a tensor of shape {shape}")]
    Len {
        /// The requested shape.
        shape: Shape,
        /// Number of values given.
        len: usize,
    },
    /// The length or the alignment of the given bytes does not fit the tensor.
    #[error("{len} bytes, or where they begin, do not suit a tensor of {dtype} {shape}")]
    Bytes {
        /// The requested shape.
        shape: Shape,
        /// The requested element type.
        dtype: DType,
        /// Number of bytes given.
        len: usize,
    },
    /// The tensor is not on the expected device.
    #[error("tensor {shape} is on the {found}, it is needed on the {expected}")]
    Device {
        /// Shape of the tensor.
        shape: Shape,
        /// The device that it is on.
        found: &'static str,
        /// The expected device.
        expected: &'static str,
    },
    /// The host is out of memory.
    #[error("out of memory: {bytes} bytes more are needed")]
    OutOfMemory {
        /// Number of bytes requested.
        bytes: usize,
    },
    /// A GPU could not be opened, or an operation on it failed.
    #[error(transparent)]
    Gpu(#[from] pheye_kernels::Error),
    /// An unknown device name.
    #[error("unknown device `{0}`; known are `cpu`, `auto`, `cuda`, `cuda:N` and `emulator`")]
    UnknownDevice(String),
}

impl Error {
    /// The GPU error that this error wraps, if any.
    pub fn gpu(&self) -> Option<&pheye_kernels::Error> {
        match self {
            Error::Gpu(e) => Some(e),
            _ => None,
        }
    }
}
