//! The errors of this crate: invalid options, gradients that are not finite, and failed operations.

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a step was not taken, or an option was rejected. Parameters and moments are unchanged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The gradient contains an infinity or a NaN, or its norm overflows.
    #[error("the norm of the gradient is {norm}; nothing was changed")]
    NonFinite {
        /// The norm.
        norm: f64,
    },
    /// The step has no target tokens to divide by.
    #[error("the step has no token to learn from")]
    NoTokens,
    /// An option is out of its range.
    #[error("{option} = {value}, allowed is {allowed}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// The allowed values.
        allowed: &'static str,
    },
    /// The moments do not match the trained parameters.
    #[error("moments of {found} elements do not fit trained parameters of {expected}")]
    Moments {
        /// Number of elements given.
        found: usize,
        /// Number of elements needed.
        expected: usize,
    },
    /// An operation failed.
    #[error(transparent)]
    Ops(#[from] pheye_ops::Error),
    /// A tensor has an unexpected shape or data type.
    #[error(transparent)]
    Tensor(#[from] pheye_tensor::Error),
}

/// Returns [`Error::Option`] unless `ok`.
pub(crate) fn check(option: &'static str, value: f64, ok: bool, allowed: &'static str) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Option { option, value, allowed }) }
}
