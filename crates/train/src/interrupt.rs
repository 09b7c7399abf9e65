//! Stopping a run: a flag is set, and the training loop saves and returns after the current step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag shared between a run and the code that may stop it, such as a signal handler. Clones share the
/// flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Makes the run save and stop after the current step.
    pub fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether [`Interrupt::stop`] was called.
    pub fn stopped(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
