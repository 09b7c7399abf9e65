//! A published file, of which rows are read by their position.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use pheye_files::Kind;

use crate::{Error, Result};

/// A published file, opened.
pub(crate) struct Published {
    /// Its name in messages.
    pub(crate) name: String,
    /// Its path, unless it is in an archive.
    pub(crate) path: Option<PathBuf>,
    /// Its length in bytes.
    pub(crate) len: u64,
    /// When it was changed, in nanoseconds since 1970, if that is known.
    pub(crate) modified: Option<u64>,
    bytes: Bytes,
}

enum Bytes {
    File(File),
    /// The contents of a file in an archive, which cannot be read by position.
    Memory(Vec<u8>),
}

/// The place of a row, or of a part of one, in the published files of a source. 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Number of the file in the highest byte, below it the offset in bytes.
    pub(crate) place: u64,
    /// Length in bytes.
    pub(crate) len: u32,
    /// CRC-32 of the bytes, so that a file that changes during a run is noticed.
    pub(crate) crc: u32,
}

const FILE: u32 = 56;
/// Maximum length of a published file in bytes.
pub(crate) const LIMIT: u64 = 1 << 40;

impl Span {
    /// The span of `bytes`, which are at `offset` of the file number `file`.
    pub(crate) fn new(file: usize, offset: u64, bytes: &[u8]) -> Span {
        Span { place: (file as u64) << FILE | offset, len: bytes.len() as u32, crc: crc32fast::hash(bytes) }
    }

    /// The number of its file.
    pub(crate) fn file(&self) -> usize {
        (self.place >> FILE) as usize
    }

    fn offset(&self) -> u64 {
        self.place & ((1 << FILE) - 1)
    }
}

impl Published {
    /// Opens the regular file `path`, of at most `limit` bytes.
    pub(crate) fn open(path: &Path, limit: u64) -> Result<Published> {
        let name = path.display().to_string();
        let open = || {
            let (file, len) = pheye_files::open_with_len(path, Kind::Regular)?;
            pheye_files::within(len, limit)?;
            let time = file.metadata()?.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
            Ok((file, len, time.and_then(|t| u64::try_from(t.as_nanos()).ok())))
        };
        let (file, len, modified) = open().map_err(|source| Error::Io { name: name.clone(), source })?;
        Ok(Published { name, path: Some(path.into()), len, modified, bytes: Bytes::File(file) })
    }

    /// The contents of a file in an archive.
    pub(crate) fn in_memory(name: String, bytes: Vec<u8>) -> Published {
        Published { name, path: None, len: bytes.len() as u64, modified: None, bytes: Bytes::Memory(bytes) }
    }

    /// Reads it from its beginning, at most its length.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { published: self, at: 0 }
    }

    /// The bytes of `span`.
    pub(crate) fn read(&self, span: &Span) -> Result<Vec<u8>> {
        let mut bytes = vec![0; span.len as usize];
        let read = self.read_at(&mut bytes, span.offset());
        let read = read.map_err(|source| Error::Io { name: self.name.clone(), source })?;
        if read < bytes.len() || crc32fast::hash(&bytes) != span.crc {
            return Err(Error::Changed { name: self.name.clone() });
        }
        Ok(bytes)
    }

    /// Fills `bytes` from `offset` on, as far as the file goes.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < bytes.len() {
            let (rest, at) = (&mut bytes[read..], offset + read as u64);
            let n = match &self.bytes {
                Bytes::File(file) => positioned(file, rest, at),
                Bytes::Memory(all) => {
                    let from = usize::try_from(at).unwrap_or(usize::MAX).min(all.len());
                    (&all[from..]).read(rest)
                }
            };
            match n {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(read)
    }
}

#[cfg(unix)]
fn positioned(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, offset)
}

#[cfg(windows)]
fn positioned(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, offset)
}

/// Reads a published file from its beginning.
pub(crate) struct Reader<'a> {
    published: &'a Published,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.published.len - self.at).unwrap_or(usize::MAX);
        let want = bytes.len().min(left);
        let read = self.published.read_at(&mut bytes[..want], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
