//! Kernels with one fault each, and for each a right one: what the emulator must find, and what it must let pass.
//!
//! They come in as the kernels of any crate do: compiled by the build script, loaded by `Gpu::load`.

pheye_kernels::include_kernels!();
