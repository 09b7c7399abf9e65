//! Kernels with planted faults, which the emulator must report; it must accept their correct versions.
//!
//! They are used like the kernels of any crate: the build script compiles them, and `Gpu::load` loads them.

pheye_kernels::include_kernels!();
