use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::{Error, Result};

/// A file read piece by piece. Not a memory map: a file that shrinks meanwhile is an error here and a killed
/// process there, and tensors are copied and converted anyhow.
pub(crate) struct DataFile {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    file: Mutex<File>,
}

/// Fits the second-level cache and is a multiple of every element size.
const CHUNK: usize = 1 << 18;

impl DataFile {
    pub(crate) fn open(path: &Path) -> Result<DataFile> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let meta = file.metadata().map_err(read)?;
        if !meta.is_file() {
            let looks_like = if meta.is_dir() { "a folder" } else { "a device or pipe" };
            return Err(Error::NotACheckpoint { path: path.to_owned(), looks_like: looks_like.into() });
        }
        if meta.len() == 0 {
            return Err(Error::Empty { path: path.to_owned() });
        }
        Ok(DataFile { path: path.to_owned(), len: meta.len(), file: Mutex::new(file) })
    }

    /// The bytes `range`; nothing is allocated for a range outside the file.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        self.check(&range)?;
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.fill(range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Calls `each` with the bytes `range`, in order, in pieces of whole elements.
    pub(crate) fn pieces(&self, range: Range<u64>, mut each: impl FnMut(&[u8])) -> Result<()> {
        self.check(&range)?;
        let mut piece = vec![0; CHUNK.min((range.end - range.start) as usize)];
        let mut at = range.start;
        while at < range.end {
            let n = CHUNK.min((range.end - at) as usize);
            self.fill(at, &mut piece[..n])?;
            each(&piece[..n]);
            at += n as u64;
        }
        Ok(())
    }

    /// A reader of the whole file; it shares the position that the methods above set anew each time.
    pub(crate) fn reader(&self) -> Result<File> {
        let file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        file.try_clone().map_err(|source| self.error(source))
    }

    fn check(&self, range: &Range<u64>) -> Result<()> {
        if range.end > self.len || range.start > range.end {
            return Err(Error::Truncated { path: self.path.clone(), expected: range.end, found: self.len });
        }
        Ok(())
    }

    fn fill(&self, start: u64, bytes: &mut [u8]) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(bytes))
            .map_err(|source| self.error(source))
    }

    fn error(&self, source: std::io::Error) -> Error {
        Error::Read { path: self.path.clone(), source }
    }
}
