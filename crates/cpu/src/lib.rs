//! Kernels for the CPU over plain slices: what `ops` calls when a tensor lives in host memory.
//!
//! Storage is f32 or bf16, arithmetic is f32. Work is cut into pieces whose borders depend on the shapes alone, never
//! on the number of threads, and every sum runs in a fixed order: a result is the same on one thread or sixty.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod gelu;
pub mod gemm;
pub mod layernorm;
pub mod math;
pub mod par;
pub mod philox;
pub mod rotary;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
