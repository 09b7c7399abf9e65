//! Compiles the kernels with planted faults, like the build script of any crate with kernels.

fn main() {
    pheye_kernel_build::compile("kernels");
}
