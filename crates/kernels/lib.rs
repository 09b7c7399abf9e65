//! GPU access for Pheye: the embedded kernels, device memory, launches, and errors.
//!
//! A [`Gpu`] is one of two launchers of the same kernels: with feature `cuda` they run on an NVIDIA GPU, with
//! feature `emulator` on a CPU emulator that checks every memory access. With neither feature the type has no
//! values. Memory is untyped: [`Memory`] owns an allocation, a [`Region`] is a part of one, and a [`Launch`]
//! names the regions that its kernel reads and writes. Launches, copies and clears run in the order in which
//! they were queued.
#![allow(unsafe_code)]

// The code that the build script generates refers to this crate by its name, as it does in other crates.
extern crate self as pheye_kernels;

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "emulator")]
mod emulated;
mod error;
mod gemm;
mod gpu;
mod launch;
mod memory;
mod param;

pub mod image;

crate::include_kernels!();

pub use error::{Error, Result};
pub use gemm::{BlasGemm, GemmOperand};
pub use gpu::{Gpu, Graph, PendingUpload};
pub use image::{Image, KernelSet};
pub use launch::{Access, Launch, Spec};
pub use memory::{Memory, Region};
pub use param::{In, Out, ParamField, Params};
