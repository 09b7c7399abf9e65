//! The targets that a release has archives for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::metadata::Metadata;

/// All targets, in the order of the tables. `.github/workflows/release.yml` and `deny.toml` have the same list, which
/// `cargo xtask tidy` compares.
pub(crate) const TARGETS: [&str; 6] = [
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "x86_64-unknown-linux-musl",
    "aarch64-apple-darwin",
    "x86_64-apple-darwin",
    "x86_64-pc-windows-msvc",
];

/// The options of `cargo` that select the features for a target. NVIDIA's driver is a shared library that is loaded
/// at run time, which a static program cannot do; macOS has none, and nvcc's installer is for Linux.
pub(crate) fn features(target: &str) -> &'static [&'static str] {
    if target.ends_with("-linux-gnu") { &[] } else { &["--no-default-features", "--features", "hub"] }
}

/// The name of the program on a target.
pub(crate) fn program(target: &str) -> &'static str {
    if target.contains("-windows-") { "pheye.exe" } else { "pheye" }
}

/// The target of this machine.
pub(crate) fn host() -> Result<String> {
    let ran = Command::new("rustc").args(["--print", "host-tuple"]).output().context("rustc")?;
    ensure!(ran.status.success(), "rustc: {}", String::from_utf8_lossy(&ran.stderr).trim());
    Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}

/// Why a target cannot be built on this machine; `None` if it can.
pub(crate) fn obstacle(target: &str, host: &str) -> Option<String> {
    if !standard_library(target) {
        return Some(format!("its standard library is not installed (rustup target add {target})"));
    }
    let linker = match target {
        _ if target == host => return None,
        "x86_64-unknown-linux-musl" => "musl-gcc",
        "aarch64-unknown-linux-gnu" => "aarch64-linux-gnu-gcc",
        _ => return Some("needs the SDK of its system".to_owned()),
    };
    (!found(linker)).then(|| format!("{linker} is not installed"))
}

/// The variable and the linker that cargo needs for a target on another processor.
pub(crate) fn linker(target: &str) -> Option<(&'static str, &'static str)> {
    let other = target == "aarch64-unknown-linux-gnu" && !cfg!(target_arch = "aarch64");
    other.then_some(("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc"))
}

/// Whether rustc has the standard library for a target.
fn standard_library(target: &str) -> bool {
    let ran = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
    ran.is_ok_and(|ran| {
        ran.status.success() && Path::new(String::from_utf8_lossy(&ran.stdout).trim()).exists()
    })
}

/// Whether a program is in `PATH` and runs.
pub(crate) fn found(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// The folder of the program that `cargo build --release --target` makes.
pub(crate) fn built(metadata: &Metadata, target: &str) -> PathBuf {
    metadata.target_directory.join(target).join("release").join(program(target))
}

/// The targets that a list elsewhere lacks.
pub(crate) fn lists(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for file in [".github/workflows/release.yml", "deny.toml"] {
        let text = fs::read_to_string(root.join(file)).context(file)?;
        let missing = TARGETS.iter().filter(|target| !text.contains(**target));
        faults.extend(missing.map(|target| format!("{file} does not name the target {target}")));
    }
    Ok(faults)
}
