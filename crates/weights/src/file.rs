//! A memory-mapped or embedded file, with bounds-checked reads.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pheye_files::Kind;

use crate::map::{Map, Mapped};
use crate::{Error, Result};

/// A file that is mapped as a whole, or embedded in the program.
pub(crate) struct DataFile {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    map: Arc<Map>,
}

impl DataFile {
    pub(crate) fn open(path: &Path) -> Result<DataFile> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        // Checked before opening, because opening a FIFO waits for a writer.
        if let Ok(meta) = fs::metadata(path)
            && !meta.is_file()
        {
            let looks_like = if meta.is_dir() { "a folder" } else { "a device or pipe" };
            return Err(Error::NotACheckpoint { path: path.to_owned(), looks_like: looks_like.into() });
        }
        let file = pheye_files::open(path, Kind::Regular).map_err(read)?;
        let meta = file.metadata().map_err(read)?;
        if meta.len() == 0 {
            return Err(Error::Empty { path: path.to_owned() });
        }
        let map = Arc::new(Map::new(&file).map_err(read)?);
        Ok(DataFile { path: path.to_owned(), len: map.bytes().len() as u64, map })
    }

    /// A file that is embedded in the program. `path` is its name in messages.
    pub(crate) fn embedded(path: &Path, bytes: &'static [u8]) -> DataFile {
        DataFile { path: path.to_owned(), len: bytes.len() as u64, map: Arc::new(Map::embedded(bytes)) }
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.bytes()
    }

    /// The bytes of `range`. Returns [`Error::Truncated`] if it exceeds the file.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<&[u8]> {
        Ok(&self.map.bytes()[self.check(range)?])
    }

    /// The bytes of `range` for an owner that may outlive this handle. Errors as [`DataFile::read`].
    pub(crate) fn shared(&self, range: Range<u64>) -> Result<Mapped> {
        Ok(Mapped { map: self.map.clone(), range: self.check(range)? })
    }

    /// Advises the system to read the bytes of `range`, which is inside the file, ahead of use.
    pub(crate) fn read_ahead(&self, range: Range<u64>) {
        self.map.read_ahead(range.start as usize..range.end as usize);
    }

    /// Releases the resident memory of `range`, which is inside the file; a later read loads it again.
    pub(crate) fn give_back(&self, range: Range<u64>) {
        self.map.give_back(range.start as usize..range.end as usize);
    }

    fn check(&self, range: Range<u64>) -> Result<Range<usize>> {
        if range.end > self.len || range.start > range.end {
            return Err(Error::Truncated { path: self.path.clone(), expected: range.end, found: self.len });
        }
        Ok(range.start as usize..range.end as usize)
    }
}
