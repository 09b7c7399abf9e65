//! Passes the folder of `emulator.h` to the build scripts of crates that compile kernels for the emulator.
#![allow(clippy::print_stdout, clippy::print_stderr)]

fn main() {
    println!("cargo::rerun-if-changed=include");
    println!("cargo::metadata=include={}/include", env!("CARGO_MANIFEST_DIR"));
}
