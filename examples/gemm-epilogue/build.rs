fn main() {
    pheye_kernel_build::compile("kernels");
}
