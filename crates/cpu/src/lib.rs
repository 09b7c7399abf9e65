//! CPU kernels over plain slices, which `pheye-ops` calls for tensors in host memory.
//!
//! Storage is f32, bf16 or int8; arithmetic is f32, except for the int8 GEMM. Work is partitioned by shape
//! alone, never by the number of threads, and every sum has a fixed order, so results do not depend on the
//! number of threads.
#![allow(unsafe_code)]

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod dropout;
mod element;
pub mod embedding;
pub mod gelu;
pub mod gemm;
pub mod layernorm;
pub mod mat;
pub mod math;
pub mod par;
pub mod philox;
pub mod rotary;

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
