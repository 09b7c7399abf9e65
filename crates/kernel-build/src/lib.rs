//! Compiles a crate's CUDA kernels in its build script.
//!
//! A crate that depends on `pheye-kernels` keeps its `.cu` files in a folder and names the folder in
//! `build.rs`:
//!
//! ```no_run
//! pheye_kernel_build::compile("kernels"); // all that `main` does
//! ```
//!
//! and in its library:
//!
//! ```ignore
//! pheye_kernels::include_kernels!();
//! ```
//!
//! (The macro needs what a build script wrote, so it is no test here: `cargo test --manifest-path
//! examples/own-kernel/Cargo.toml` runs it.)
//!
//! This defines `KERNELS`, to be passed to `Gpu::load(&KERNELS)`, and the module `params` with a Rust struct
//! for each parameter struct of a kernel. The enabled features of `pheye-kernels` determine what the kernels
//! are compiled for: `cuda` compiles them by nvcc to fatbins, `emulator` by the host's C++ compiler to a
//! library that checks every memory access. With neither, `params` is still generated, so that the crate
//! compiles.
//!
//! The environment variables (`PHEYE_CUDA`, `PHEYE_CUDA_ARCHS`, `NVCC`, `CXX`, …) are those of
//! `pheye-kernels`; its `kernels/README.md` lists them. A `.cu` can include the headers of `pheye-kernels`:
//! their folder is searched after the folder `include` of the crate's own kernels.
//!
//! The program `pheye-kernel-build` of this crate prints the resources that each kernel uses: registers,
//! shared memory, spills, and occupancy.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![forbid(unsafe_code)]

mod cuda;
mod elf;
mod emulator;
mod jobs;
mod nvcc;
mod occupancy;
mod params;
mod ptxas;
mod report;
mod set;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

pub use report::{Report, report};

/// The launchers to compile the kernels for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Launchers {
    /// NVIDIA GPUs, compiled by nvcc.
    pub cuda: bool,
    /// The emulator, compiled by the host's C++ compiler.
    pub emulator: bool,
}

/// A package with kernels, from the environment of its build script.
struct Package {
    /// Its name, such as `own-kernel`.
    name: String,
    root: PathBuf,
    /// The folder of its `.cu` files.
    kernels: PathBuf,
    /// The include folders, in search order.
    includes: Vec<PathBuf>,
    /// The folder of the emulator's header, if a dependency published it.
    emulator: Option<PathBuf>,
    out: PathBuf,
    /// The folder of compiled objects, named by content and shared by all packages, profiles and features of
    /// a target folder.
    cache: PathBuf,
}

/// Compiles all `.cu` files in `dir`, a folder of the calling build script's package, for the enabled
/// launchers of its dependency `pheye-kernels`. On an error it prints the reason and exits the build script.
pub fn compile(dir: impl AsRef<Path>) {
    let features = env::var("DEP_PHEYE_KERNELS_FEATURES").map_err(|_| {
        "the features of pheye-kernels are not known: the crate whose build script this is must depend on it".to_owned()
    });
    end(features.and_then(|features| {
        let has = |name| features.split(',').any(|feature| feature == name);
        build(dir.as_ref(), Launchers { cuda: has("cuda"), emulator: has("emulator") })
    }));
}

/// [`compile`] for explicit launchers, for the build script of `pheye-kernels` itself.
pub fn compile_for(dir: impl AsRef<Path>, launchers: Launchers) {
    end(build(dir.as_ref(), launchers));
}

fn end(result: Result<(), String>) {
    if let Err(why) = result {
        eprintln!("{why}");
        std::process::exit(1);
    }
}

fn build(dir: &Path, launchers: Launchers) -> Result<(), String> {
    let package = Package::of_build_script(dir)?;
    println!("cargo::rerun-if-changed={}", dir.display());
    for include in package.includes.iter().filter(|include| !include.starts_with(&package.kernels)) {
        println!("cargo::rerun-if-changed={}", include.display());
    }
    let sources = jobs::sources(&package.kernels)?;
    if sources.is_empty() {
        return Err(format!("{}: there is no .cu file", package.kernels.display()));
    }
    let structs = params::of(&sources, &package.includes)?;
    let images = match launchers.cuda {
        true => cuda::build(&package, &sources)?,
        false => cuda::Images::none("it was built without feature `cuda`"),
    };
    let emulated = match launchers.emulator {
        true => emulator::build(&package, &sources, &structs)?,
        false => Vec::new(),
    };
    write(package.out.join("kernels.rs"), &set::text(&package, &images, &emulated, &structs))?;
    // Saves the folders for the report, which runs without a build script.
    let folders = [&package.kernels].into_iter().chain(&package.includes);
    let folders: Vec<_> = folders.map(|folder| folder.to_string_lossy()).collect();
    fs::create_dir_all(&package.cache)
        .map_err(|e| format!("cannot make {}: {e}", package.cache.display()))?;
    write(package.cache.join(format!("{}.include", package.name)), &folders.join("\n"))
}

impl Package {
    fn of_build_script(dir: &Path) -> Result<Package, String> {
        let var =
            |name: &str| env::var_os(name).map(PathBuf::from).ok_or(format!("cargo did not set {name}"));
        let (root, out) = (var("CARGO_MANIFEST_DIR")?, var("OUT_DIR")?);
        let name = var("CARGO_PKG_NAME")?.to_string_lossy().into_owned();
        let kernels = root.join(dir);
        // TARGET/PROFILE/build/PACKAGE/out
        let build = out.ancestors().nth(2).filter(|dir| dir.ends_with("build"));
        let target = build.and_then(|build| build.ancestors().nth(2));
        let cache = target.unwrap_or(&out).join("kernels");
        let own = Some(kernels.join("include")).filter(|include| include.is_dir());
        let told = |name: &str| nvcc::set(name).map(PathBuf::from);
        let includes = own.into_iter().chain(told("DEP_PHEYE_KERNELS_INCLUDE")).collect();
        let emulator = told("DEP_PHEYE_EMULATOR_INCLUDE").or_else(|| told("DEP_PHEYE_KERNELS_EMULATOR"));
        Ok(Package { name, root, kernels, includes, emulator, out, cache })
    }

    /// Its name with every character that is not allowed in an identifier replaced by `_`.
    fn identifier(&self) -> String {
        self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
    }
}

fn write(file: PathBuf, text: &str) -> Result<(), String> {
    fs::write(&file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
