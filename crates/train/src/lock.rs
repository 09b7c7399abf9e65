//! One process writes to a run's folder at a time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Keeps other processes out of a run's folder while it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    out: PathBuf,
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Locks the folder `out`, which is made if need be.
    ///
    /// # Errors
    /// [`Error::RunBusy`] when another process has it, or [`Error::Write`].
    pub(crate) fn take(out: &Path) -> Result<Lock> {
        let path = out.join("run.lock");
        let mut how = fs::OpenOptions::new();
        let how = how.write(true).create(true).truncate(false);
        let opened = fs::create_dir_all(out).and_then(|()| how.open(&path));
        let file = opened.map_err(|e| Error::write(&path, e))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(Error::RunBusy { path: out.into() }),
            // Some network file systems have no locks.
            Err(TryLockError::Error(_)) | Ok(()) => Ok(Lock { out: out.into(), path, file }),
        }
    }

    /// Makes sure that the folder is still this process's: a lock that somebody removed is taken again.
    ///
    /// # Errors
    /// [`Error::LockLost`] when there is another file in its place, which another process may have locked.
    pub(crate) fn check(&mut self) -> Result<()> {
        match same(&self.file, &self.path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::LockLost { path: self.path.clone() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                *self = Lock::take(&self.out)?;
                Ok(())
            }
            Err(e) => Err(Error::read(&self.path, e)),
        }
    }
}

/// Whether `path` still names the open file.
#[cfg(unix)]
fn same(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (ours, found) = (file.metadata()?, fs::metadata(path)?);
    Ok((ours.dev(), ours.ino()) == (found.dev(), found.ino()))
}

/// An open file cannot be removed or replaced here.
#[cfg(not(unix))]
fn same(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_lock_is_taken_again_and_a_replaced_one_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut lock = Lock::take(dir.path()).unwrap();
        lock.check().unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(Error::RunBusy { .. })));
        if cfg!(unix) {
            fs::remove_file(dir.path().join("run.lock")).unwrap();
            lock.check().unwrap();
            assert!(matches!(Lock::take(dir.path()), Err(Error::RunBusy { .. })));
            fs::remove_file(dir.path().join("run.lock")).unwrap();
            let other = Lock::take(dir.path()).unwrap();
            assert!(matches!(lock.check(), Err(Error::LockLost { .. })));
            drop(other);
        }
    }
}
