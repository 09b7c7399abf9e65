//! The tolerance rule: an implementation may be twice as far from the truth as the plain formula in its own precision.

use std::fmt;

/// How far a tensor may be from the truth: `factor`·max|naive - truth| + 10⁻⁶·max|truth|.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    factor: f64,
}

impl Rule {
    /// For outputs.
    pub const OUTPUT: Rule = Rule { factor: 2.0 };
    /// For gradients.
    pub const GRADIENT: Rule = Rule { factor: 3.0 };

    /// Measures the tensor `name`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn compare(self, name: impl Into<String>, out: &[f32], naive: &[f32], truth: &[f64]) -> Report {
        let name = name.into();
        assert_eq!((out.len(), naive.len()), (truth.len(), truth.len()), "{name}: number of elements");
        let (error, at) = largest_error(out, truth);
        let largest = truth.iter().fold(0.0, |m: f64, t| m.max(t.abs()));
        let allowed = self.factor * largest_error(naive, truth).0 + 1e-6 * largest;
        Report { name, error, allowed, at }
    }
}

/// The largest |x - truth| and where it is; a NaN counts as larger than any number.
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

/// How far a tensor is from the truth, and how far it may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The tensor.
    pub name: String,
    /// Largest error over its elements.
    pub error: f64,
    /// Largest error allowed.
    pub allowed: f64,
    /// The element with the largest error.
    pub at: usize,
}

impl Report {
    /// Whether the tensor is near enough. One with a NaN is not.
    pub fn ok(&self) -> bool {
        self.error <= self.allowed
    }

    /// Stops the test unless the tensor is near enough.
    ///
    /// # Panics
    /// When it is not.
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
