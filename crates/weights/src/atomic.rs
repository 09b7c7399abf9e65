//! Atomic replacement of files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pheye_files::Kind;

use crate::{Error, Result};

/// Atomically replaces the file `path` with what `write` writes. The bytes go to a new file in the same
/// folder, are flushed to disk, and the new file is then renamed. A process killed before the rename leaves
/// the old file unchanged and a temporary `.NAME.….tmp` next to it, which the next write of that name
/// removes.
///
/// # Errors
/// Returns [`Error::Write`] if `write` or the system fails. An [`Error`] that `write` returned inside an
/// [`io::Error`] is passed on. The new file is then removed.
pub fn atomic_write(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    // An error of this crate that `write` returned is reported unchanged.
    replace(path, write).map_err(|source| match source.downcast::<Error>() {
        Ok(own) => own,
        Err(source) => Error::Write { path: path.to_owned(), source },
    })
}

/// Copies the regular file `from` to `to`, atomically like [`atomic_write`].
///
/// # Errors
/// Returns [`Error::Read`] if `from` cannot be read, and [`Error::Write`] if `to` cannot be written.
pub fn copy_atomically(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let from = from.as_ref();
    let fault = |source| Error::Read { path: from.to_owned(), source };
    let mut file = pheye_files::open(from, Kind::Regular).map_err(fault)?;
    atomic_write(to, |out| {
        let mut piece = vec![0; 1 << 16];
        loop {
            match file.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(n) => out.write_all(&piece[..n])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(fault(e).into()),
            }
        }
    })
}

fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let name =
        path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let name = name.to_string_lossy();
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    remove_strays(folder, &name);
    let (temporary, file) = create(folder, &name)?;
    let written = fill(file, write).and_then(|_locked| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // The rename itself must be flushed; not every system can open a folder to do that.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Creates a new temporary file for `name`. It is locked while open, which distinguishes it from a leftover
/// file, and it never reuses an existing file or link.
fn create(folder: &Path, name: &str) -> io::Result<(PathBuf, File)> {
    // Names are unique within a process, so that removing a leftover cannot remove a newer file.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".{name}.{}.{n}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => {
                // If files cannot be locked here, `remove_if_stray` does not remove this one either.
                let _ = file.lock();
                // Another process may have removed the file as a leftover before it was locked.
                if path.symlink_metadata().is_ok() {
                    return Ok((path, file));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}

/// Writes the file and flushes it to disk.
fn fill(file: File, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<File> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(file)
}

/// Removes temporary files in `folder` left by killed writers of `name`. Failures are harmless and ignored.
fn remove_strays(folder: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let start = format!(".{name}.");
    for entry in entries.flatten() {
        let found = entry.file_name();
        let found = found.to_string_lossy();
        let middle = found.strip_prefix(&start).and_then(|rest| rest.strip_suffix(".tmp"));
        let ours =
            middle.is_some_and(|m| !m.is_empty() && m.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
        if ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            remove_if_stray(&entry.path());
        }
    }
}

fn remove_if_stray(path: &Path) {
    let Ok(file) = OpenOptions::new().write(true).open(path) else { return };
    match file.try_lock() {
        // The file is locked while it is removed: a writer that has just created it notices the removal.
        Ok(()) => _ = fs::remove_file(path),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
    }
}
