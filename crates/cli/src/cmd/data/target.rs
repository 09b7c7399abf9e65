//! Writes a data set to a new folder or zip archive, which appears under its name when it is complete.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Name of the manifest in a data set.
const MANIFEST: &str = "manifest.jsonl";
/// Names in the staging folder that are no part of the data set.
const LOCK: &str = ".lock";
const ARCHIVE: &str = ".zip";
/// The endings of images.
const IMAGES: [&str; 2] = ["png", "jpg"];

/// A data set that is being written. If dropped without [`Target::finish`], nothing is left of it.
pub(crate) struct Target {
    out: PathBuf,
    /// A folder beside `out` that holds everything until it is complete.
    staging: PathBuf,
    archive: Option<ZipWriter<BufWriter<File>>>,
    manifest: BufWriter<File>,
    _lock: File,
}

impl Target {
    /// Begins the folder, or the archive if its name ends in `.zip`, called `out`. With `overwrite` it may
    /// replace an archive or a folder of images with a manifest.
    pub(crate) fn create(out: &Path, overwrite: bool) -> anyhow::Result<Target> {
        let name = out.file_name().with_context(|| format!("{}: not the name of a file", out.display()))?;
        let is_zip = out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"));
        if out.symlink_metadata().is_ok() {
            ensure!(overwrite, "{}: it exists; --overwrite replaces it", out.display());
            replaceable(out, is_zip)?;
        }
        let staging = out.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        let at = || staging.display().to_string();
        fs::create_dir_all(&staging).with_context(at)?;
        let lock = File::create(staging.join(LOCK)).with_context(at)?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            bail!("{}: another process writes it", out.display());
        }
        clear(&staging).with_context(at)?;
        let manifest = BufWriter::new(File::create(staging.join(MANIFEST)).with_context(at)?);
        let archive = match is_zip {
            true => {
                Some(ZipWriter::new(BufWriter::new(File::create(staging.join(ARCHIVE)).with_context(at)?)))
            }
            false => None,
        };
        Ok(Target { out: out.to_owned(), staging, archive, manifest, _lock: lock })
    }

    /// The staging folder, to be removed after an interruption.
    pub(crate) fn staging(&self) -> &Path {
        &self.staging
    }

    /// Adds an image, which is compressed already, and its line of the manifest.
    pub(crate) fn add(&mut self, name: &str, image: &[u8], line: &str) -> anyhow::Result<()> {
        let at = || format!("{}: {name}", self.staging.display());
        match &mut self.archive {
            Some(zip) => {
                zip.start_file(name, entry(CompressionMethod::Stored)).with_context(at)?;
                zip.write_all(image).with_context(at)?;
            }
            None => fs::write(self.staging.join(name), image).with_context(at)?,
        }
        writeln!(self.manifest, "{line}").with_context(at)
    }

    /// Completes the data set and moves it to its name.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let out = self.out.display().to_string();
        self.complete().with_context(|| out.clone())
    }

    fn complete(&mut self) -> anyhow::Result<()> {
        self.manifest.flush()?;
        self.manifest.get_ref().sync_all()?;
        let from = match self.archive.take() {
            Some(mut zip) => {
                zip.start_file(MANIFEST, entry(CompressionMethod::Deflated))?;
                io::copy(&mut File::open(self.staging.join(MANIFEST))?, &mut zip)?;
                let file = zip.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.sync_all()?;
                self.staging.join(ARCHIVE)
            }
            None => {
                fs::remove_file(self.staging.join(LOCK))?;
                self.staging.clone()
            }
        };
        if self.out.is_dir() && from == self.staging {
            // A folder cannot be renamed over another one that is not empty.
            let old = self.staging.with_extension("old");
            fs::rename(&self.out, &old)?;
            fs::rename(&from, &self.out)?;
            fs::remove_dir_all(old)?;
        } else {
            fs::rename(&from, &self.out)?;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // After a folder was completed, it is under its own name, and there is nothing here to remove. Errors
        // are ignored: the next attempt removes leftovers.
        let _ = fs::remove_dir_all(&self.staging);
    }
}

/// Options of a zip entry whose bytes depend on its contents alone.
fn entry(method: CompressionMethod) -> SimpleFileOptions {
    let options = SimpleFileOptions::default().compression_method(method).large_file(false);
    options.last_modified_time(DateTime::DEFAULT).unix_permissions(0o644)
}

/// Whether `--overwrite` may remove `out`: a file in place of an archive, or a folder of a data set alone.
fn replaceable(out: &Path, is_zip: bool) -> anyhow::Result<()> {
    let name = out.display();
    let metadata = out.symlink_metadata().with_context(|| name.to_string())?;
    if is_zip {
        ensure!(metadata.is_file(), "{name}: it is not a regular file, and is not overwritten");
        return Ok(());
    }
    ensure!(metadata.is_dir(), "{name}: it is not a folder, and is not overwritten");
    for entry in fs::read_dir(out).with_context(|| name.to_string())? {
        let entry = entry.with_context(|| name.to_string())?;
        let path = entry.path();
        let ours = entry.file_name() == MANIFEST
            || path.extension().is_some_and(|ending| IMAGES.iter().any(|image| ending == *image));
        ensure!(
            ours && entry.file_type()?.is_file(),
            "{name}: it holds {}, which is not part of a data set, and is not overwritten",
            pheye_files::quoted(&entry.file_name().to_string_lossy())
        );
    }
    ensure!(out.join(MANIFEST).exists(), "{name}: it has no {MANIFEST}, and is not overwritten");
    Ok(())
}

/// Removes what a killed process left in the staging folder.
fn clear(staging: &Path) -> io::Result<()> {
    for entry in fs::read_dir(staging)? {
        let entry = entry?;
        if entry.file_name() != LOCK {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
