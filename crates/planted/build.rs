//! Compiles the kernels with the planted faults, as the build script of any crate with kernels does.

fn main() {
    pheye_kernel_build::compile("kernels");
}
