//! The errors of operations.

use pheye_tensor::Shape;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The shapes of two tensors are inconsistent.
    #[error("{op}: {left_name} {left} does not fit {right_name} {right}")]
    Shapes {
        /// The operation.
        op: &'static str,
        /// The role of the first tensor.
        left_name: &'static str,
        /// Shape of the first tensor.
        left: Shape,
        /// The role of the second tensor.
        right_name: &'static str,
        /// Shape of the second tensor.
        right: Shape,
    },
    /// An option or an index is outside its range.
    #[error("{op}: {what} is {value}, expected {allowed}")]
    Range {
        /// The operation.
        op: &'static str,
        /// The name of the option or index.
        what: &'static str,
        /// Its value.
        value: String,
        /// The allowed values.
        allowed: String,
    },
    /// The operation has no GPU kernel.
    #[error("{op} runs on the CPU only")]
    CpuOnly {
        /// The operation.
        op: &'static str,
    },
    /// The operation works on GPU memory only.
    #[error("{op} runs on a GPU only")]
    GpuOnly {
        /// The operation.
        op: &'static str,
    },
    /// A tensor has the wrong element type or device, or a GPU failed.
    #[error(transparent)]
    Tensor(#[from] pheye_tensor::Error),
}

impl From<pheye_tensor::GpuError> for Error {
    fn from(error: pheye_tensor::GpuError) -> Error {
        Error::Tensor(error.into())
    }
}

impl Error {
    /// The GPU error inside this error, if there is one.
    pub fn gpu(&self) -> Option<&pheye_tensor::GpuError> {
        match self {
            Error::Tensor(e) => e.gpu(),
            _ => None,
        }
    }
}
