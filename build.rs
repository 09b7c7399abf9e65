//! Compiles the kernels by `pheye-kernel-build`, as the build script of every crate with kernels does. As
//! cargo metadata it passes the include folders and the enabled launchers to the build scripts of crates that
//! depend on this one.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::env;

use pheye_kernel_build::{Launchers, compile_for};

fn main() {
    let feature = |name: &str| env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
    let launchers = Launchers { cuda: feature("CUDA"), emulator: feature("EMULATOR") };
    compile_for("kernels", launchers);

    let features = [("cuda", launchers.cuda), ("emulator", launchers.emulator)];
    let features: Vec<_> = features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    // Dependent build scripts read these as DEP_PHEYE_KERNELS_FEATURES and so on.
    println!("cargo::metadata=features={}", features.join(","));
    println!(
        "cargo::metadata=include={}/kernels/include",
        env::var("CARGO_MANIFEST_DIR").unwrap_or_default()
    );
    println!("cargo::metadata=emulator={}", env::var("DEP_PHEYE_EMULATOR_INCLUDE").unwrap_or_default());
}
