//! The GPU behind Pheye: the kernels, how they are launched, and what can go wrong.
//!
//! A [`Gpu`] is one of two launchers of the same kernels: feature `cuda` runs them on an NVIDIA GPU, feature `emulator` on a CPU
//! emulator that checks every access. With neither, the type has no values. Memory is raw: [`Memory`] owns it, a [`Region`] names
//! a part of it, and a [`Launch`] says which kernel reads and writes which regions. Work runs in the order it was given.
#![allow(unsafe_code)]

// The build script's text names this crate as any other crate would.
extern crate self as pheye_kernels;

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "emulator")]
mod emulated;
mod error;
mod gpu;
mod launch;
mod memory;
mod param;
mod product;

pub mod image;

crate::include_kernels!();

pub use error::{Error, Result};
pub use gpu::{Gpu, Graph, PendingUpload};
pub use image::{Image, KernelSet};
pub use launch::{Access, Launch, Spec};
pub use memory::{Memory, Region};
pub use param::{In, Out, ParamField, Params};
pub use product::{BlasGemm, GemmOperand};
