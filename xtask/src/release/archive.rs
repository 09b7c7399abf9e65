//! The archive of one target, `cargo xtask archive`: the program, README, licences, and its checksum.

use std::env;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use zip::{DateTime, ZipWriter, write::SimpleFileOptions};

use super::metadata::{self, Metadata};
use super::{target, third_party};

/// The time of every file in an archive, so that the same files give the same bytes. `cargo package` uses it too:
/// some programs refuse the year 1970.
const TIME: u64 = 1_153_704_088;

/// A file of an archive: its name, its bytes, and whether it is executable.
type Entry = (String, Vec<u8>, bool);

/// An archive that was written.
pub(crate) struct Archive {
    pub(crate) file: PathBuf,
    /// The size of the program in bytes.
    pub(crate) program: u64,
    /// The size of the archive in bytes.
    pub(crate) bytes: u64,
    /// The number of crates in THIRD_PARTY.md.
    pub(crate) crates: usize,
}

/// `[--target TRIPLE] [--out DIR]`: builds and packs, for this machine unless a target is given.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let root = fs::canonicalize(crate::root()).context("the root of the repository")?;
    let metadata = metadata::everything(&root)?;
    let (mut target, mut out) = (None, metadata.target_directory.join("dist"));
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let value = args.next().with_context(|| format!("a value after {arg}"))?;
        match arg.as_str() {
            "--target" => target = Some(value.clone()),
            "--out" => out = std::path::absolute(value)?,
            _ => bail!("no option `{arg}`; there are --target and --out"),
        }
    }
    let target = target.map_or_else(target::host, Ok)?;
    build(&root, &target)?;
    let archive = pack(&root, &metadata, &target, &out)?;
    let sum = checksums(&out, &[&archive.file])?;
    println!("{}: {} bytes, the program {}", archive.file.display(), archive.bytes, archive.program);
    print!("{sum}");
    Ok(())
}

/// Builds the program for a target.
pub(crate) fn build(root: &Path, target: &str) -> Result<()> {
    let mut cargo = metadata::cargo(root);
    cargo.args(["build", "--release", "--locked", "-p", "pheye-cli", "--target", target]);
    if let Some((variable, linker)) = target::linker(target) {
        cargo.env(variable, linker);
    }
    // Messages of a panic name source files, which are those of no machine in particular.
    let mut flags = env::var("RUSTFLAGS").unwrap_or_default();
    for (from, to) in paths(root) {
        flags += &format!(" --remap-path-prefix={from}={to}");
    }
    cargo.env("RUSTFLAGS", flags.trim());
    let status = cargo.args(target::features(target)).status().context("cargo build")?;
    ensure!(status.success(), "cargo build --target {target} failed");
    Ok(())
}

/// The folders of this machine that would stand in the program, and what stands there instead.
fn paths(root: &Path) -> [(String, &'static str); 2] {
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| Some(env::home_dir()?.join(".cargo"))).unwrap_or_default();
    [(cargo.join("registry/src").display().to_string(), "crates"), (root.display().to_string(), "pheye")]
}

/// Packs the built program into `pheye-TARGET.tar.gz`, or `.zip` for Windows, in the folder `out`. The version is not
/// in the name, so that an address of the latest release stays the same.
pub(crate) fn pack(root: &Path, metadata: &Metadata, target: &str, out: &Path) -> Result<Archive> {
    let program = target::built(metadata, target);
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    let binary = read(&program)?;
    for (path, _) in paths(root) {
        let found = binary.windows(path.len() + 1).any(|bytes| bytes == format!("{path}/").as_bytes());
        ensure!(!found, "{}: it contains the path {path} of this machine", program.display());
    }
    let (third_party, crates) = third_party::document(root, metadata, target)?;
    let size = binary.len() as u64;
    let mut entries: Vec<Entry> = vec![
        (target::program(target).to_owned(), binary, true),
        ("README.md".to_owned(), read(&root.join("crates/cli/README.md"))?, false),
        ("LICENSE-APACHE".to_owned(), read(&root.join("LICENSE-APACHE"))?, false),
        ("LICENSE-MIT".to_owned(), read(&root.join("LICENSE-MIT"))?, false),
        ("THIRD_PARTY.md".to_owned(), third_party.into_bytes(), false),
        ("COPYRIGHT-library.html".to_owned(), read(&standard_library()?)?, false),
    ];
    let name = format!("pheye-{target}");
    entries.iter_mut().for_each(|entry| entry.0 = format!("{name}/{}", entry.0));
    let windows = target.contains("-windows-");
    let bytes = if windows { zip(&entries)? } else { tar_gz(&entries)? };
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let file = out.join(format!("{name}.{}", if windows { "zip" } else { "tar.gz" }));
    fs::write(&file, &bytes).with_context(|| file.display().to_string())?;
    Ok(Archive { file, program: size, bytes: bytes.len() as u64, crates })
}

/// The licences of Rust's standard library, which every toolchain brings.
fn standard_library() -> Result<PathBuf> {
    let ran = Command::new("rustc").args(["--print", "sysroot"]).output().context("rustc")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&ran.stdout).trim());
    Ok(sysroot.join("share/doc/rust/COPYRIGHT-library.html"))
}

fn tar_gz(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(GzBuilder::new().write(Vec::new(), Compression::best()));
    for (name, bytes, executable) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(if *executable { 0o755 } else { 0o644 });
        header.set_mtime(TIME);
        tar.append_data(&mut header, name, bytes.as_slice()).with_context(|| name.clone())?;
    }
    Ok(tar.into_inner()?.finish()?)
}

fn zip(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes, executable) in entries {
        let options = SimpleFileOptions::default().last_modified_time(DateTime::DEFAULT);
        zip.start_file(name, options.unix_permissions(if *executable { 0o755 } else { 0o644 }))?;
        zip.write_all(bytes)?;
    }
    Ok(zip.finish()?.into_inner())
}

/// Writes SHA256SUMS for archives in a folder, in the format of `sha256sum`, and returns its text.
pub(crate) fn checksums(out: &Path, files: &[&PathBuf]) -> Result<String> {
    let mut text = String::new();
    for file in files {
        let bytes = fs::read(file).with_context(|| file.display().to_string())?;
        let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("{sum}  {}\n", file.file_name().unwrap_or_default().to_string_lossy());
    }
    let list = out.join("SHA256SUMS");
    fs::write(&list, &text).with_context(|| list.display().to_string())?;
    Ok(text)
}

#[test]
fn the_same_files_give_the_same_archive() {
    let entries =
        [("pheye-x/pheye".to_owned(), vec![7; 3000], true), ("pheye-x/a".to_owned(), vec![1], false)];
    let packed = tar_gz(&entries).unwrap();
    assert_eq!(packed, tar_gz(&entries).unwrap());
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
    let modes: Vec<u32> = tar.entries().unwrap().map(|e| e.unwrap().header().mode().unwrap()).collect();
    assert_eq!(modes, [0o755, 0o644]);
    assert_eq!(zip(&entries).unwrap(), zip(&entries).unwrap());
}
