//! The learning rate at every step, a function of the step alone: a resumed run needs no state for it.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::check;

/// The curve after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// The same rate throughout.
    Constant,
    /// Half a cosine from `lr` to `final_lr`.
    #[default]
    Cosine,
}

/// Warm-up from 0 in a straight line, then a curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest rate.
    pub lr: f64,
    /// What a cosine ends at.
    pub final_lr: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// The curve after it.
    pub kind: ScheduleKind,
}

impl Schedule {
    /// A cosine from `lr` to 0 without warm-up.
    pub fn cosine(lr: f64) -> Schedule {
        Schedule { lr, final_lr: 0.0, warmup: 0, kind: ScheduleKind::Cosine }
    }

    /// The rate of step `step` (from 0) of `total`.
    ///
    /// Of w warm-up steps, step s has lr·(s+1)/(w+1). With t = (s-w)/(total-w), a cosine has
    /// final + (lr - final)·(1 + cos πt)/2: `lr` itself at its first step, not quite `final_lr` at the last.
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

    /// Whether the numbers make sense.
    ///
    /// # Errors
    /// [`crate::Error::Option`] for a negative or non-finite rate.
    pub fn check(&self) -> Result<()> {
        let ok = |x: f64| x.is_finite() && x >= 0.0;
        check("lr", self.lr, ok(self.lr), "a finite number from 0")?;
        check("final_lr", self.final_lr, ok(self.final_lr), "a finite number from 0")
    }
}
