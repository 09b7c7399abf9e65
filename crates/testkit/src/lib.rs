//! What the tests of an operation need: its formula written once, the tolerance rule, and recorded data to compare with.
//!
//! A reference formula is generic over [`Real`]. In f64 it is the truth, in f32 it is what the plain version achieves in the
//! precision under test, and over [`Dual`] numbers it gives both versions of every gradient. No tolerance is chosen by
//! hand: [`Rule`] derives it from how far the plain version is from the truth.
//!
//! For tests only: everything here panics with a message that names the tensor.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![forbid(unsafe_code)]

mod golden;
pub mod gpu;
mod gradcheck;
mod network;
pub mod plain;
mod random;
mod real;
mod tolerance;

pub use golden::{Golden, Values};
pub use gradcheck::{Formula, Ran, gradcheck, reports};
pub use network::{Inputs, Named, gradients, randomize};
pub use random::{Draw, cases, normal, uniform};
pub use real::{Dual, Real, max};
pub use tolerance::{Report, Rule};
