//! Files that are replaced whole or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pheye_files::Kind;

use crate::{Error, Result};

/// Replaces the file `path` by what `write` writes, or leaves it as it is: the bytes go to a new file in the same
/// folder, reach the disk, and only then take the name. A process killed in between leaves the old file, and a
/// stray `.NAME.….tmp` beside it, which the next write of that name removes.
///
/// # Errors
/// [`Error::Write`] when `write` or the system fails, or the [`Error`] that `write` returned inside an [`io::Error`]; the
/// new file is then removed.
pub fn atomic_write(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    // An error of this crate on its way through `write` is the one to report.
    replace(path, write).map_err(|source| match source.downcast::<Error>() {
        Ok(own) => own,
        Err(source) => Error::Write { path: path.to_owned(), source },
    })
}

/// Copies the regular file `from` to `to`, as [`atomic_write`] writes it.
///
/// # Errors
/// [`Error::Read`] for `from`, [`Error::Write`] for `to`.
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
    // The new name itself must reach the disk; folders cannot be opened for that everywhere.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// A new file for what will be called `name`, locked as long as it is open: the lock tells it from a stray. It is never
/// one that was there, nor behind a link that was.
fn create(folder: &Path, name: &str) -> io::Result<(PathBuf, File)> {
    // No name twice in a process: whoever removes a stray must not meet its successor.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".{name}.{}.{n}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => {
                // Where files cannot be locked, nobody takes this one for a stray either.
                let _ = file.lock();
                // Before it was locked, another process may have taken it for one.
                if path.symlink_metadata().is_ok() {
                    return Ok((path, file));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}

/// Writes the file and waits until it is on the disk.
fn fill(file: File, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<File> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(file)
}

/// Removes what writers of `name` left in `folder` that were killed. What cannot be removed does no harm.
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
        // Removed while it is locked: whoever made it just now notices that it is gone.
        Ok(()) => _ = fs::remove_file(path),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
    }
}
