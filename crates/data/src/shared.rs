//! A file that several threads read at once, each at a position of its own.

use std::fs::File;
use std::io::{self, Error, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use pheye_files::Kind;

/// A regular file with its length at the time it was opened.
pub(crate) struct Shared {
    #[cfg(unix)]
    file: File,
    #[cfg(not(unix))]
    file: std::sync::Mutex<File>,
    len: u64,
    modified: Option<SystemTime>,
}

impl Shared {
    pub(crate) fn open(path: &Path) -> io::Result<Shared> {
        let (file, len) = pheye_files::open_with_len(path, Kind::Regular)?;
        let modified = file.metadata()?.modified().ok();
        #[cfg(not(unix))]
        let file = std::sync::Mutex::new(file);
        Ok(Shared { file, len, modified })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// When it had last been changed before it was opened, if that is known.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        self.modified
    }

    #[cfg(unix)]
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.file, bytes, at)
    }

    #[cfg(not(unix))]
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        file.seek(SeekFrom::Start(at))?;
        file.read(bytes)
    }

    /// The `len` bytes from `at`. `len` must have been compared with a limit.
    ///
    /// # Errors
    /// Returns [`ErrorKind::UnexpectedEof`] if the file ends before, [`ErrorKind::OutOfMemory`] if there is no
    /// memory for the bytes, and errors of the system.
    pub(crate) fn bytes(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let end = at.checked_add(len).filter(|&end| end <= self.len);
        let end = end.ok_or_else(|| Error::new(ErrorKind::UnexpectedEof, "it ends before"))?;
        let mut bytes = pheye_files::take(self.window(at, end), len, len)?;
        if bytes.len() as u64 != len {
            bytes.clear();
            return Err(Error::new(ErrorKind::UnexpectedEof, "it has become shorter since it was opened"));
        }
        Ok(bytes)
    }

    /// A reader of the bytes from `at` to `end`.
    pub(crate) fn window(&self, at: u64, end: u64) -> Window<&Shared> {
        Window { file: self, at, end }
    }
}

/// Maximum number of files of one container that are kept open; others are opened for each read.
const OPEN: usize = 256;

/// One of several files of a container.
pub(crate) struct Kept {
    pub(crate) path: PathBuf,
    /// `None` if too many others are open.
    file: Option<Arc<Shared>>,
}

impl Kept {
    /// The opened file with this number.
    pub(crate) fn new(path: &Path, file: Arc<Shared>, number: usize) -> Kept {
        Kept { path: path.into(), file: (number < OPEN).then_some(file) }
    }

    pub(crate) fn get(&self) -> io::Result<Arc<Shared>> {
        match &self.file {
            Some(file) => Ok(file.clone()),
            None => Shared::open(&self.path).map(Arc::new),
        }
    }
}

/// A reader of a part of a [`Shared`] file.
pub(crate) struct Window<S> {
    pub(crate) file: S,
    /// The position in the file.
    pub(crate) at: u64,
    /// The end of the part.
    pub(crate) end: u64,
}

impl<S: Deref<Target = Shared>> Read for Window<S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = bytes.len().min(left);
        let read = self.file.read_at(&mut bytes[..wanted], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<S: Deref<Target = Shared>> Seek for Window<S> {
    /// Positions are those of the file, not of the part.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "a position outside any file"))?;
        Ok(self.at)
    }
}
