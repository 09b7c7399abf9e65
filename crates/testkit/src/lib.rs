//! The tools of the operation tests: reference formulas, gradient checks, tolerances, and golden data.
//!
//! A reference formula is generic over [`Real`]. In f64 it gives the true values, in f32 the result of a
//! naive implementation, and over [`Dual`] numbers both versions of every gradient ([`gradcheck`]). [`Var`] gives
//! all gradients in one evaluation, for inputs of any size, and [`Rounded`] is the naive implementation whose
//! intermediate tensors are bf16 ([`gpucheck`]). No tolerance is chosen by hand: [`Rule`] derives it from the
//! error of the naive implementation.
//!
//! For tests only: functions panic, with a message that names the tensor.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![forbid(unsafe_code)]

mod golden;
pub mod gpu;
mod gpucheck;
mod gradcheck;
mod network;
pub mod plain;
mod random;
mod real;
mod rounded;
mod tape;
mod tolerance;

pub use golden::{Golden, Values};
pub use gpucheck::{BEFORE, Expected, gpucheck};
pub use gradcheck::{Formula, Ran, gradcheck, reports};
pub use network::{Inputs, Named, gradients, randomize, train_all};
pub use random::{Draw, cases, normal, uniform};
pub use real::{Dual, Real, max};
pub use rounded::Rounded;
pub use tape::{Tape, Var, vjp};
pub use tolerance::{Report, Rule};
