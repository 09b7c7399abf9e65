//! Tensors, the devices they are on, and the parameters of a network.
//!
//! All tensors are contiguous and row-major. A [`Tensor`] is a view of a shared [`Buffer`], so cloning it copies no
//! data. Buffers come from an [`Arena`] and return to it when the last view is dropped, so a training step allocates
//! nothing after the first step.
#![forbid(unsafe_code)]

mod arena;
mod buffer;
mod device;
mod dtype;
mod error;
mod int8;
mod param;
mod pool;
mod shape;
mod source;
mod tensor;

pub use arena::{Arena, Hold};
pub use buffer::Buffer;
pub use device::Device;
pub use dtype::{DType, Slice};
pub use error::{Error, Result};
pub use half::bf16;
pub use param::{Grads, Masters, Param, ParamTable};
pub use pheye_kernels::{
    BlasGemm, Error as GpuError, GemmOperand, Gpu, Graph, KERNELS, Launch, PendingUpload, Region,
};
pub use pool::ArenaStats;
pub use shape::Shape;
pub use source::{Init, Scope, Shapes, Source};
pub use tensor::Tensor;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
