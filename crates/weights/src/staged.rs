//! Adds several files to a folder together. They are written to a staging folder and moved when all are
//! complete. A process killed while writing leaves no file under its final name, and the next attempt cleans
//! up.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result, atomic_write, refuse_existing};

/// The name of the staging folder, inside the folder that the files are for.
const PARTIAL: &str = ".partial";
/// The name of the file that is locked while a process writes.
const LOCK: &str = ".lock";
/// The name of the file that exists while the files are moved. It contains the description passed to
/// [`Staged::publish`].
const MOVING: &str = ".moving";

/// Files that are being added to a folder. If dropped without [`Staged::publish`], they are removed.
#[derive(Debug)]
pub struct Staged {
    folder: PathBuf,
    partial: PathBuf,
    /// Whether [`Staged::open`] created the folder.
    made: bool,
    published: bool,
    _lock: File,
}

/// The result of [`Staged::open`].
#[derive(Debug)]
pub enum Opened {
    /// An empty staging folder.
    Ready(Staged),
    /// An earlier process was killed while it moved its complete files, and the rest has now been moved. `.0`
    /// is the description that it passed to [`Staged::publish`].
    Completed(String),
}

impl Staged {
    /// Opens a staging folder for `folder`, which is created if necessary. Leftovers of a killed process are
    /// removed, or published if all of its files were complete.
    ///
    /// # Errors
    /// Returns [`Error::Write`] if the system fails or another process is writing to the folder.
    pub fn open(folder: &Path) -> Result<Opened> {
        let partial = folder.join(PARTIAL);
        let fault = |source| Error::Write { path: partial.clone(), source };
        let made = !folder.exists();
        fs::create_dir_all(&partial).map_err(fault)?;
        let lock = File::create(partial.join(LOCK)).map_err(fault)?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            return Err(fault(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another process writes to this folder",
            )));
        }
        let mut staged = Staged { folder: folder.to_owned(), partial, made, published: false, _lock: lock };
        if let Ok(what) = fs::read_to_string(staged.partial.join(MOVING)) {
            let files = staged.files().map_err(|source| staged.fault(source))?;
            staged.move_all(files).map_err(|source| staged.fault(source))?;
            staged.published = true;
            return Ok(Opened::Completed(what));
        }
        for file in staged.files().map_err(|source| staged.fault(source))? {
            fs::remove_file(staged.partial.join(&file)).map_err(|source| staged.fault(source))?;
        }
        Ok(Opened::Ready(staged))
    }

    /// The staging folder, in which the files are to be written.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Moves all files into the folder, `last` after all others. `what` describes them for a process that
    /// completes the move after a kill.
    ///
    /// # Errors
    /// Returns [`Error::Exists`] and moves none if a file already exists in the folder, and [`Error::Write`]
    /// if the system fails.
    pub fn publish(mut self, last: &str, what: &str) -> Result<()> {
        let mut files = self.files().map_err(|source| self.fault(source))?;
        files.sort_by_key(|file| file == Path::new(last));
        refuse_existing(files.iter().map(|file| self.folder.join(file)))?;
        atomic_write(self.partial.join(MOVING), |out| out.write_all(what.as_bytes()))?;
        // After this point a failed move is completed by the next [`Staged::open`].
        self.published = true;
        self.move_all(files).map_err(|source| self.fault(source))
    }

    fn fault(&self, source: io::Error) -> Error {
        Error::Write { path: self.partial.clone(), source }
    }

    /// The files in the staging folder, by their paths relative to it.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let (mut folders, mut files) = (vec![self.partial.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if let Ok(name) = entry.path().strip_prefix(&self.partial) {
                    files.push(name.to_owned());
                }
            }
        }
        files.retain(|file| file != Path::new(LOCK) && file != Path::new(MOVING));
        files.sort();
        Ok(files)
    }

    /// Moves `files` in their order and removes the staging folder.
    fn move_all(&self, files: Vec<PathBuf>) -> io::Result<()> {
        let mut folders = std::collections::BTreeSet::from([self.folder.clone()]);
        for file in files {
            let to = self.folder.join(&file);
            let above = to.parent().unwrap_or(&self.folder);
            fs::create_dir_all(above)?;
            fs::rename(self.partial.join(&file), &to)?;
            folders.insert(above.to_owned());
        }
        // The new directory entries must be flushed to disk; not every system can open a folder for that.
        #[cfg(unix)]
        folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())?;
        fs::remove_dir_all(&self.partial)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // Errors are ignored: the error that led here is the one to report, and the next attempt removes
            // leftovers.
            let _ = fs::remove_dir_all(&self.partial);
            if self.made {
                let _ = fs::remove_dir(&self.folder);
            }
        }
    }
}
