//! Files by name, in a folder or in a zip archive.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use pheye_files::{Kind, within};
use pheye_image::DecodeOptions;
use zip::result::ZipError;

use crate::archive::{self, Archive};
use crate::{Error, Result};

/// Maximum size of an image file in bytes.
const IMAGE_LIMIT: u64 = DecodeOptions::MAX_BYTES;
/// Maximum size of a manifest in bytes.
const MANIFEST_LIMIT: u64 = 4 << 30;

/// Where the files of a manifest are stored.
pub enum Store {
    /// In a folder; names are paths relative to it.
    Folder(PathBuf),
    /// In a zip archive, stored or deflated.
    Zip {
        /// The archive.
        path: PathBuf,
        /// The reader; only reading holds the lock, decoding does not.
        archive: Mutex<Archive>,
    },
}

/// The properties of a file that are known without unpacking it.
pub(crate) struct Facts {
    /// Uncompressed size in bytes.
    pub(crate) len: u64,
    /// CRC-32 of its contents, if it is in an archive.
    pub(crate) crc: Option<u32>,
}

impl Store {
    /// Opens a folder or a zip archive.
    ///
    /// # Errors
    /// Returns [`Error::Io`], [`Error::Zip`] or [`Error::Duplicate`] if the archive cannot be read; the error
    /// names the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        if path.is_dir() {
            return Ok(Store::Folder(path.into()));
        }
        Ok(Store::Zip { path: path.into(), archive: Mutex::new(archive::open(path)?) })
    }

    /// The path of the file `name` for messages.
    pub fn name(&self, name: &str) -> String {
        match self {
            Store::Folder(path) => path.join(name).display().to_string(),
            Store::Zip { path, .. } => format!("{}: {name}", path.display()),
        }
    }

    /// The bytes of the image `name`, a regular file of at most 512 MiB.
    ///
    /// # Errors
    /// Returns [`Error::Io`] or [`Error::Zip`] if the file cannot be read; the error names it.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let io = |source| self.io(name, source);
        match self {
            Store::Folder(path) => {
                pheye_files::read(&path.join(name), Kind::Regular, IMAGE_LIMIT).map_err(io)
            }
            Store::Zip { archive, .. } => {
                let mut archive = lock(archive);
                let file = archive.by_name(name).map_err(|e| self.zip(name, e))?;
                let len = within(file.size(), IMAGE_LIMIT).map_err(io)?;
                // Never more than the size in the directory, whatever the entry unpacks to.
                pheye_files::take(file, len, len).map_err(io)
            }
        }
    }

    /// Reads the manifest `name`, a regular file of at most 4 GiB, with `read`.
    pub(crate) fn read_manifest<T>(
        &self,
        name: &str,
        read: impl FnOnce(&mut dyn BufRead) -> Result<T>,
    ) -> Result<T> {
        let io = |source| self.io(name, source);
        match self {
            Store::Folder(path) => {
                let (file, len) = pheye_files::open_with_len(&path.join(name), Kind::Regular).map_err(io)?;
                let len = within(len, MANIFEST_LIMIT).map_err(io)?;
                read(&mut BufReader::new(std::io::Read::take(file, len)))
            }
            Store::Zip { archive, .. } => {
                let mut archive = lock(archive);
                let file = archive.by_name(name).map_err(|e| self.zip(name, e))?;
                within(file.size(), MANIFEST_LIMIT).map_err(io)?;
                read(&mut BufReader::new(std::io::Read::take(file, MANIFEST_LIMIT)))
            }
        }
    }

    /// The properties of the file `name`, or `None` if it does not exist or is not a regular file.
    pub(crate) fn facts(&self, name: &str) -> Option<Facts> {
        match self {
            Store::Folder(path) => {
                let metadata = std::fs::metadata(path.join(name)).ok().filter(|m| m.is_file())?;
                Some(Facts { len: metadata.len(), crc: None })
            }
            Store::Zip { archive, .. } => {
                let archive = lock(archive);
                let entry = archive.by_index_data(archive.index_for_name(name)?).ok()?;
                Some(Facts { len: entry.size(), crc: Some(entry.crc32()) })
            }
        }
    }

    pub(crate) fn io(&self, name: &str, source: std::io::Error) -> Error {
        Error::Io { name: self.name(name), source }
    }

    fn zip(&self, name: &str, source: ZipError) -> Error {
        match source {
            ZipError::FileNotFound => self.io(name, std::io::ErrorKind::NotFound.into()),
            source => Error::Zip { name: self.name(name), source },
        }
    }
}

/// The lock, even if a thread panicked while holding it: every read seeks first, so no state is inconsistent.
fn lock(archive: &Mutex<Archive>) -> MutexGuard<'_, Archive> {
    archive.lock().unwrap_or_else(|e| e.into_inner())
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name(""))
    }
}
