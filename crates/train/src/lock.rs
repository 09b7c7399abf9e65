//! Ensures that only one process at a time writes to the folder of a run.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::{Error, Result};

/// A file lock that keeps other processes out of a run's folder until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    out: PathBuf,
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Locks the folder `out`, which is created if needed.
    ///
    /// # Errors
    /// Returns [`Error::RunBusy`] if another process holds the lock, or [`Error::Write`].
    pub(crate) fn take(out: &Path) -> Result<Lock> {
        let path = out.join(NAME);
        let mut how = fs::OpenOptions::new();
        let how = how.write(true).create(true).truncate(false);
        let opened = fs::create_dir_all(out).and_then(|()| how.open(&path));
        let file = opened.map_err(|e| Error::write(&path, e))?;
        for attempt in 1.. {
            match file.try_lock() {
                // `held` of another process locks the file for a moment.
                Err(TryLockError::WouldBlock) if attempt < ATTEMPTS => sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(Error::RunBusy { path: out.into() }),
                // Some network file systems do not support locks; the run then continues without one.
                Err(TryLockError::Error(_)) | Ok(()) => break,
            }
        }
        Ok(Lock { out: out.into(), path, file })
    }

    /// Checks that this process still holds the lock. If the lock file was removed, it is created and locked
    /// again.
    ///
    /// # Errors
    /// Returns [`Error::LockLost`] if the lock file was replaced by another, which another process may have
    /// locked; or the errors of [`Lock::take`].
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

/// Whether a process holds the lock of the run in the folder `out`.
pub(crate) fn held(out: &Path) -> bool {
    let file = File::open(out.join(NAME));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Name of the lock file in the folder of a run.
pub(crate) const NAME: &str = "run.lock";
/// How often, and after which time, a lock that another process holds is tried again.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Whether `path` still refers to the open file.
#[cfg(unix)]
pub(crate) fn same(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (ours, found) = (file.metadata()?, fs::metadata(path)?);
    Ok((ours.dev(), ours.ino()) == (found.dev(), found.ino()))
}

/// On this platform an open file cannot be removed or replaced.
#[cfg(not(unix))]
pub(crate) fn same(_: &File, _: &Path) -> io::Result<bool> {
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
        assert!(held(dir.path()) && !held(&dir.path().join("other")));
        if cfg!(unix) {
            fs::remove_file(dir.path().join("run.lock")).unwrap();
            lock.check().unwrap();
            assert!(matches!(Lock::take(dir.path()), Err(Error::RunBusy { .. })));
            fs::remove_file(dir.path().join("run.lock")).unwrap();
            let other = Lock::take(dir.path()).unwrap();
            assert!(matches!(lock.check(), Err(Error::LockLost { .. })));
            drop(other);
            assert!(!held(dir.path()));
        }
    }
}
