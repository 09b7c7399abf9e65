use crate::{DType, Shape};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The elements are of another type than the caller works on.
    #[error("tensor {shape} holds {found}, {expected} is needed")]
    DType {
        /// Shape of the tensor.
        shape: Shape,
        /// Its element type.
        found: DType,
        /// The element type asked for.
        expected: DType,
    },
    /// A buffer would be written while others can read it.
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
        /// Shape asked for.
        view: Shape,
        /// First element asked for.
        start: usize,
    },
    /// The number of values does not match the shape.
    #[error("{len} values cannot fill a tensor of shape {shape}")]
    Len {
        /// Shape asked for.
        shape: Shape,
        /// Values given.
        len: usize,
    },
    /// Bytes of another owner cannot be the elements of a tensor.
    #[error("{len} bytes, or where they begin, do not suit a tensor of {dtype} {shape}")]
    Bytes {
        /// Shape asked for.
        shape: Shape,
        /// Element type asked for.
        dtype: DType,
        /// Bytes given.
        len: usize,
    },
    /// A tensor is on another device than the caller works on.
    #[error("tensor {shape} is on the {found}, it is needed on the {expected}")]
    Device {
        /// Shape of the tensor.
        shape: Shape,
        /// Where it is.
        found: &'static str,
        /// Where it is needed.
        expected: &'static str,
    },
    /// The host has no memory left.
    #[error("out of memory: {bytes} bytes more are needed")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A GPU could not be opened, or what it was asked for failed.
    #[error(transparent)]
    Gpu(#[from] pheye_kernels::Error),
    /// A device name that means nothing.
    #[error("unknown device `{0}`; known are `cpu`, `auto`, `cuda`, `cuda:N` and `emulator`")]
    UnknownDevice(String),
}

impl Error {
    /// The GPU's error in this one, if it is one.
    pub fn gpu(&self) -> Option<&pheye_kernels::Error> {
        match self {
            Error::Gpu(e) => Some(e),
            _ => None,
        }
    }
}
