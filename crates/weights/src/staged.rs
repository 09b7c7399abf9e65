//! Adds several files to a folder together. They are written to a staging folder and moved when all are
//! complete. A process killed while writing leaves no file under its final name, and the next attempt cleans
//! up.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result, atomic_write, refuse_existing};

/// Where the files are until all are complete, in the folder they are for.
const PARTIAL: &str = ".partial";
/// Locked for as long as somebody writes.
const LOCK: &str = ".lock";
/// Is there while files are moved; holds what was made.
const MOVING: &str = ".moving";

/// Files on their way into a folder. Dropped without [`Staged::publish`], they are removed.
#[derive(Debug)]
pub struct Staged {
    folder: PathBuf,
    partial: PathBuf,
    /// The folder did not exist before.
    made: bool,
    published: bool,
    _lock: File,
}

/// What [`Staged::open`] found.
#[derive(Debug)]
pub enum Opened {
    /// An empty stage.
    Ready(Staged),
    /// An earlier process was killed while it moved its complete files; the rest has been moved. `.0` is what it
    /// made, in the words of its [`Staged::publish`].
    Completed(String),
}

impl Staged {
    /// Opens a staging folder for `folder`, which is created if necessary. Leftovers of a killed process are
    /// removed, or published if all of its files were complete.
    ///
    /// # Errors
    /// [`Error::Write`] when the system fails or another process is writing to the folder.
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

    /// Where the files are to be written.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Moves all files into the folder, `last` after all others; `what` says what they are, for whoever completes the
    /// move after a kill.
    ///
    /// # Errors
    /// [`Error::Exists`] for a file that is in the folder already: then none is moved; [`Error::Write`].
    pub fn publish(mut self, last: &str, what: &str) -> Result<()> {
        let mut files = self.files().map_err(|source| self.fault(source))?;
        files.sort_by_key(|file| file == Path::new(last));
        refuse_existing(files.iter().map(|file| self.folder.join(file)))?;
        atomic_write(self.partial.join(MOVING), |out| out.write_all(what.as_bytes()))?;
        // From here on, what cannot be moved is moved by the next attempt.
        self.published = true;
        self.move_all(files).map_err(|source| self.fault(source))
    }

    fn fault(&self, source: io::Error) -> Error {
        Error::Write { path: self.partial.clone(), source }
    }

    /// The files below the stage, by their paths in it.
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

    /// Moves `files`, in their order, and takes the stage away.
    fn move_all(&self, files: Vec<PathBuf>) -> io::Result<()> {
        let mut folders = std::collections::BTreeSet::from([self.folder.clone()]);
        for file in files {
            let to = self.folder.join(&file);
            let above = to.parent().unwrap_or(&self.folder);
            fs::create_dir_all(above)?;
            fs::rename(self.partial.join(&file), &to)?;
            folders.insert(above.to_owned());
        }
        // The new names must reach the disk; folders cannot be opened for that everywhere.
        #[cfg(unix)]
        folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())?;
        fs::remove_dir_all(&self.partial)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // The error that led here is the one to report, and the next attempt tries again.
            let _ = fs::remove_dir_all(&self.partial);
            if self.made {
                let _ = fs::remove_dir(&self.folder);
            }
        }
    }
}
