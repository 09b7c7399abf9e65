//! The result of one comparison with golden data.

use serde::Serialize;

/// The result of one comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// Name of the stage.
    pub name: String,
    /// Largest difference from the reference.
    pub error: f64,
    /// Largest allowed difference.
    pub allowed: f64,
}

impl Stage {
    /// Whether the difference is within its bound; NaN never is.
    pub fn passed(&self) -> bool {
        self.error <= self.allowed
    }
}

/// The largest absolute value; NaN if there is one.
pub(crate) fn largest(values: impl Iterator<Item = f64>) -> f64 {
    // `f64::max` would ignore a NaN.
    values.fold(0.0, |a, v| if v.abs() > a || v.is_nan() { v.abs() } else { a })
}
