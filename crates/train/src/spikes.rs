//! Notices gradient spikes: steps whose gradient norm is far above those of the steps before.

use std::collections::VecDeque;

/// Number of steps whose norms are compared with.
const WINDOW: usize = 100;
/// Fewest steps to compare with, because the first steps of a run differ much from each other.
const FEWEST: usize = 20;

/// The gradient norms of the last steps.
#[derive(Debug, Default)]
pub(crate) struct Norms(VecDeque<f64>);

impl Norms {
    /// Adds the norm of a step.
    pub(crate) fn push(&mut self, norm: f64) {
        if self.0.len() == WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(norm);
    }

    /// The median of the last steps, if `norm` exceeds `times` times it. There is none with `times` = 0.
    pub(crate) fn exceeded(&self, norm: f64, times: f64) -> Option<f64> {
        if times == 0.0 || self.0.len() < FEWEST {
            return None;
        }
        let mut sorted: Vec<f64> = self.0.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        (norm > times * median).then_some(median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_norm_is_compared_with_the_median_of_the_last_hundred() {
        let mut norms = Norms::default();
        (0..FEWEST - 1).for_each(|_| norms.push(1.0));
        assert_eq!(norms.exceeded(1e9, 10.0), None, "too few steps");
        norms.push(1.0);
        assert_eq!(norms.exceeded(10.0, 10.0), None);
        assert_eq!(norms.exceeded(10.5, 10.0), Some(1.0));
        assert_eq!(norms.exceeded(10.5, 0.0), None);
        (0..WINDOW).for_each(|_| norms.push(3.0));
        assert_eq!((norms.exceeded(10.5, 10.0), norms.exceeded(31.0, 10.0)), (None, Some(3.0)));
    }
}
