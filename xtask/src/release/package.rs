//! The packages of the crates as they would be published.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

use super::metadata::{self, Metadata};

/// What a package must have: a README is checked by the manifest, whose name for it differs.
const NEEDED: [&str; 3] = ["Cargo.toml", "LICENSE-MIT", "LICENSE-APACHE"];
/// The most that the registry takes.
const LIMIT: u64 = 10 << 20;

/// The packages of all published crates.
pub(crate) struct Packages {
    pub(crate) count: usize,
    pub(crate) bytes: u64,
    /// The largest one, and its size.
    pub(crate) largest: (String, u64),
    pub(crate) faults: Vec<String>,
}

/// Packs every published crate in a folder outside the repository, where a file that a crate takes from elsewhere in
/// the repository is missing. With `verify` each of them is also built there.
pub(crate) fn pack(root: &Path, metadata: &Metadata, verify: bool) -> Result<Packages> {
    let outside = tempfile::tempdir().context("a temporary folder")?;
    let mut cargo = metadata::cargo(root);
    cargo.args(["package", "--workspace", "--locked", "--allow-dirty", "--quiet", "--target-dir"]);
    cargo.arg(outside.path());
    let ours = metadata.packages.iter().filter(|package| package.is_ours());
    let (published, private): (Vec<_>, Vec<_>) = ours.partition(|package| package.is_published());
    for package in private {
        cargo.args(["--exclude", &package.name]);
    }
    if !verify {
        cargo.arg("--no-verify");
    }
    let ran = cargo.output().context("cargo package")?;
    ensure!(ran.status.success(), "cargo package: {}", String::from_utf8_lossy(&ran.stderr).trim());
    let mut packages =
        Packages { count: published.len(), bytes: 0, largest: (String::new(), 0), faults: Vec::new() };
    for package in published {
        let name = format!("{}-{}", package.name, package.version);
        let file = outside.path().join("package").join(format!("{name}.crate"));
        let bytes = fs::metadata(&file).with_context(|| file.display().to_string())?.len();
        packages.bytes += bytes;
        if bytes > packages.largest.1 {
            packages.largest = (package.name.clone(), bytes);
        }
        let files = list(&file, &name)?;
        let missing = NEEDED.iter().filter(|needed| !files.iter().any(|file| file == *needed));
        packages.faults.extend(missing.map(|file| format!("{name} lacks {file}")));
        // They need data and crates that are not published.
        if let Some(test) = files.iter().find(|file| file.starts_with("tests/")) {
            packages.faults.push(format!("{name} has tests, which cannot run there: {test}"));
        }
        if bytes > LIMIT {
            packages.faults.push(format!("{name} has {bytes} bytes, more than the registry takes"));
        }
    }
    Ok(packages)
}

/// The files in a package.
fn list(file: &Path, name: &str) -> Result<Vec<String>> {
    let at = || file.display().to_string();
    let mut tar = tar::Archive::new(GzDecoder::new(File::open(file).with_context(at)?));
    let mut files = Vec::new();
    for entry in tar.entries().with_context(at)? {
        let path = entry.with_context(at)?.path().with_context(at)?.into_owned();
        files.push(path.strip_prefix(name).unwrap_or(&path).display().to_string());
    }
    Ok(files)
}
