//! The learning-rate schedule, a function of the step alone, so that a resumed run needs no state for it.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::check;

/// The curve after the warmup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// A constant learning rate.
    Constant,
    /// Half a cosine period from `lr` to `final_lr`.
    #[default]
    Cosine,
}

/// A linear warmup from 0, then a curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end of the cosine.
    pub final_lr: f64,
    /// Number of warmup steps.
    pub warmup: u64,
    /// The curve after the warmup.
    pub kind: ScheduleKind,
}

impl Schedule {
    /// A cosine from `lr` to 0 without warmup.
    pub fn cosine(lr: f64) -> Schedule {
        Schedule { lr, final_lr: 0.0, warmup: 0, kind: ScheduleKind::Cosine }
    }

    /// The learning rate of step `step` (from 0) of `total` steps.
    ///
    /// With w warmup steps, step s < w has lr·(s + 1) / (w + 1). After that, with t = (s − w) / (total − w),
    /// the cosine is final_lr + (lr − final_lr)·(1 + cos πt) / 2. Its first step has exactly `lr`; its last
    /// step is slightly above `final_lr`.
    pub fn lr(&self, step: u64, total: u64) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / (self.warmup + 1) as f64;
        }
        match self.kind {
            ScheduleKind::Constant => self.lr,
            ScheduleKind::Cosine => {
                let length = total.saturating_sub(self.warmup).max(1);
                let t = ((step - self.warmup) as f64 / length as f64).min(1.0);
                self.final_lr + (self.lr - self.final_lr) * 0.5 * (1.0 + (PI * t).cos())
            }
        }
    }

    /// Checks that the learning rates are valid.
    ///
    /// # Errors
    /// Returns [`crate::Error::Option`] if a learning rate is negative or not finite.
    pub fn check(&self) -> Result<()> {
        let ok = |x: f64| x.is_finite() && x >= 0.0;
        check("lr", self.lr, ok(self.lr), "a finite number from 0")?;
        check("final_lr", self.final_lr, ok(self.final_lr), "a finite number from 0")
    }
}
