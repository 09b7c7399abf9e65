//! Why an operation did not run.

use pheye_tensor::Shape;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation did not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The shapes of two tensors do not fit each other.
    #[error("{op}: {left_name} {left} does not fit {right_name} {right}")]
    Shapes {
        /// The operation.
        op: &'static str,
        /// What the first tensor is to it.
        left_name: &'static str,
        /// Shape of the first tensor.
        left: Shape,
        /// What the second tensor is to it.
        right_name: &'static str,
        /// Shape of the second tensor.
        right: Shape,
    },
    /// An option or an index is out of its range.
    #[error("{op}: {what} is {value}, expected {allowed}")]
    Range {
        /// The operation.
        op: &'static str,
        /// The option or index.
        what: &'static str,
        /// Its value.
        value: String,
        /// The values allowed.
        allowed: String,
    },
    /// There is no kernel for it.
    #[error("{op} runs on the CPU only")]
    CpuOnly {
        /// The operation.
        op: &'static str,
    },
    /// It works on memory of a GPU.
    #[error("{op} runs on a GPU only")]
    GpuOnly {
        /// The operation.
        op: &'static str,
    },
    /// A tensor is not what was expected.
    #[error(transparent)]
    Tensor(#[from] pheye_tensor::Error),
}

impl From<pheye_tensor::GpuError> for Error {
    fn from(error: pheye_tensor::GpuError) -> Error {
        Error::Tensor(error.into())
    }
}

impl Error {
    /// The GPU's error in this one, if it is one.
    pub fn gpu(&self) -> Option<&pheye_tensor::GpuError> {
        match self {
            Error::Tensor(e) => e.gpu(),
            _ => None,
        }
    }
}
