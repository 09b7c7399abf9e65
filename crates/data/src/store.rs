//! Files by name, in a folder or in a zip archive.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use zip::ZipArchive;
use zip::result::ZipError;

use crate::{Error, Result};

/// Where the files of a manifest lie.
pub enum Store {
    /// In a folder; names are paths relative to it.
    Folder(PathBuf),
    /// In a zip archive, stored or deflated.
    Zip {
        /// The archive.
        path: PathBuf,
        /// One reader; decoding happens outside the lock.
        archive: Mutex<ZipArchive<BufReader<File>>>,
    },
}

impl Store {
    /// A folder, or a file that is a zip archive.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Zip`], naming the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        let name = || path.display().to_string();
        if path.is_dir() {
            return Ok(Store::Folder(path.into()));
        }
        let file = File::open(path).map_err(|source| Error::Io { name: name(), source })?;
        let archive =
            ZipArchive::new(BufReader::new(file)).map_err(|source| Error::Zip { name: name(), source })?;
        Ok(Store::Zip { path: path.into(), archive: Mutex::new(archive) })
    }

    /// The file `name` as errors call it.
    pub fn name(&self, name: &str) -> String {
        match self {
            Store::Folder(path) => path.join(name).display().to_string(),
            Store::Zip { path, .. } => format!("{}: {name}", path.display()),
        }
    }

    /// The bytes of the file `name`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Zip`], naming the file.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let io = |source| Error::Io { name: self.name(name), source };
        match self {
            Store::Folder(path) => std::fs::read(path.join(name)).map_err(io),
            Store::Zip { archive, .. } => {
                // A reader that panicked while holding the lock left no half-done state: every read seeks first.
                let mut archive = archive.lock().unwrap_or_else(|e| e.into_inner());
                let mut file = archive.by_name(name).map_err(|source| match source {
                    ZipError::FileNotFound => io(std::io::ErrorKind::NotFound.into()),
                    source => Error::Zip { name: self.name(name), source },
                })?;
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map_err(io)?;
                Ok(bytes)
            }
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name(""))
    }
}
