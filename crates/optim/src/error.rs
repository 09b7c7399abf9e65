//! Options of the optimizer that make no sense, and what an operation ran into.

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a step was not taken, or an option refused. The parameters and moments are as before.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The gradient holds an infinity or a NaN, or overflows.
    #[error("the norm of the gradient is {norm}; nothing was changed")]
    NonFinite {
        /// The norm found.
        norm: f64,
    },
    /// No token of the step counts, so that there is nothing to divide by.
    #[error("the step has no token to learn from")]
    NoTokens,
    /// An option is out of its range.
    #[error("{option} = {value}, allowed is {allowed}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// The values allowed.
        allowed: &'static str,
    },
    /// Moments that do not fit the trained parameters.
    #[error("moments of {found} elements do not fit trained parameters of {expected}")]
    Moments {
        /// Elements given.
        found: usize,
        /// Elements needed.
        expected: usize,
    },
    /// The update itself.
    #[error(transparent)]
    Ops(#[from] pheye_ops::Error),
    /// A tensor is not what was expected.
    #[error(transparent)]
    Tensor(#[from] pheye_tensor::Error),
}

/// Checks one option.
pub(crate) fn check(option: &'static str, value: f64, ok: bool, allowed: &'static str) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Option { option, value, allowed }) }
}
