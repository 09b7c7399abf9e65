//! Files in a zip archive.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use pheye_files::within;
use zip::result::ZipError;

use super::archive::{self, Archive};
use super::{Facts, IMAGE_LIMIT, MANIFEST_LIMIT};
use crate::{Error, Result};

/// A zip archive, stored or deflated.
pub struct Zip {
    path: PathBuf,
    /// Only reading holds the lock, decoding does not.
    archive: Mutex<Archive>,
}

impl Zip {
    pub(super) fn open(path: &Path) -> Result<Zip> {
        Ok(Zip { path: path.into(), archive: Mutex::new(archive::open(path)?) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its files, in the order of its directory.
    pub(super) fn names(&self) -> Vec<String> {
        let archive = self.lock();
        let names = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned()));
        names.filter(|name| !name.ends_with('/')).collect()
    }

    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut archive = self.lock();
        let file = archive.by_name(name).map_err(|e| self.error(name, e))?;
        let len = within(file.size(), IMAGE_LIMIT).map_err(|e| self.io(name, e))?;
        // Never more than the size in the directory, whatever the entry unpacks to.
        pheye_files::take(file, len, len).map_err(|e| self.io(name, e))
    }

    pub(super) fn read_manifest<T>(
        &self,
        name: &str,
        read: impl FnOnce(&mut dyn BufRead) -> Result<T>,
    ) -> Result<T> {
        let mut archive = self.lock();
        let file = archive.by_name(name).map_err(|e| self.error(name, e))?;
        within(file.size(), MANIFEST_LIMIT).map_err(|e| self.io(name, e))?;
        read(&mut BufReader::new(Read::take(file, MANIFEST_LIMIT)))
    }

    pub(super) fn facts(&self, name: &str) -> Option<Facts> {
        let archive = self.lock();
        let entry = archive.by_index_data(archive.index_for_name(name)?).ok()?;
        Some(Facts { len: entry.size(), check: Some(entry.crc32()) })
    }

    fn name(&self, name: &str) -> String {
        format!("{}: {name}", self.path.display())
    }

    fn io(&self, name: &str, source: std::io::Error) -> Error {
        Error::Io { name: self.name(name), source }
    }

    fn error(&self, name: &str, source: ZipError) -> Error {
        match source {
            ZipError::FileNotFound => self.io(name, std::io::ErrorKind::NotFound.into()),
            source => Error::Zip { name: self.name(name), source },
        }
    }

    /// The lock, even if a thread panicked while holding it: every read seeks first, so no state is
    /// inconsistent.
    fn lock(&self) -> MutexGuard<'_, Archive> {
        self.archive.lock().unwrap_or_else(|e| e.into_inner())
    }
}
