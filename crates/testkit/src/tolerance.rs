//! The tolerance rule: the error of an implementation may be at most twice the error of the naive formula in
//! its own precision, and three times for gradients.

use std::fmt;

/// The largest error allowed: `factor`·max|naive − truth| + 10⁻⁶·max|truth|.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    factor: f64,
}

impl Rule {
    /// The rule for outputs.
    pub const OUTPUT: Rule = Rule { factor: 2.0 };
    /// The rule for gradients.
    pub const GRADIENT: Rule = Rule { factor: 3.0 };

    /// Compares `out`, the tensor `name`, with the true values, given the result of the naive formula.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn compare(self, name: impl Into<String>, out: &[f32], naive: &[f32], truth: &[f64]) -> Report {
        let name = name.into();
        assert_eq!(naive.len(), truth.len(), "{name}: number of elements");
        self.compare_with(name, out, largest_error(naive, truth).0, truth)
    }

    /// [`Rule::compare`], given the largest error of the naive formula.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn compare_with(
        self,
        name: impl Into<String>,
        out: &[f32],
        naive_error: f64,
        truth: &[f64],
    ) -> Report {
        let name = name.into();
        assert_eq!(out.len(), truth.len(), "{name}: number of elements");
        let (error, at) = largest_error(out, truth);
        let largest = truth.iter().fold(0.0, |m: f64, t| m.max(t.abs()));
        Report { name, error, allowed: self.factor * naive_error + 1e-6 * largest, at }
    }
}

/// The largest |x − truth| and its index. NaN counts as larger than any number.
fn largest_error(x: &[f32], truth: &[f64]) -> (f64, usize) {
    let mut worst = (0.0, 0);
    for (i, (&x, &t)) in x.iter().zip(truth).enumerate() {
        let e = (f64::from(x) - t).abs();
        if e.is_nan() {
            return (e, i);
        }
        if e > worst.0 {
            worst = (e, i);
        }
    }
    worst
}

/// The error of a tensor, and the error allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The name of the tensor.
    pub name: String,
    /// The largest absolute error.
    pub error: f64,
    /// The largest absolute error allowed.
    pub allowed: f64,
    /// The index of the element with the largest error.
    pub at: usize,
}

impl Report {
    /// Whether the error is within the tolerance. It is not if the tensor holds a NaN.
    pub fn ok(&self) -> bool {
        self.error <= self.allowed
    }

    /// Asserts that the error is within the tolerance.
    ///
    /// # Panics
    /// If it is not.
    pub fn check(&self) {
        assert!(self.ok(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { name, error, allowed, at } = self;
        write!(f, "{name}: off by {error:.3e} at element {at}, allowed is {allowed:.3e}")
    }
}
