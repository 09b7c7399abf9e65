//! A published file, of which rows are read by their position.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::shared::Shared;
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
    File(Shared),
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
            let file = Shared::open(path)?;
            pheye_files::within(file.len(), limit)?;
            Ok(file)
        };
        let file = open().map_err(|source| Error::Io { name: name.clone(), source })?;
        let time = file.modified().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let modified = time.and_then(|t| u64::try_from(t.as_nanos()).ok());
        Ok(Published { name, path: Some(path.into()), len: file.len(), modified, bytes: Bytes::File(file) })
    }

    /// The contents of a file in an archive.
    pub(crate) fn in_memory(name: String, bytes: Vec<u8>) -> Published {
        Published { name, path: None, len: bytes.len() as u64, modified: None, bytes: Bytes::Memory(bytes) }
    }

    /// Reads it from its beginning, at most its length.
    pub(crate) fn reader(&self) -> Box<dyn Read + '_> {
        match &self.bytes {
            Bytes::File(file) => Box::new(file.window(0, self.len)),
            Bytes::Memory(bytes) => Box::new(bytes.as_slice()),
        }
    }

    /// The bytes of `span`.
    pub(crate) fn read(&self, span: &Span) -> Result<Vec<u8>> {
        let changed = || Error::Changed { name: self.name.clone() };
        let fault = |source: std::io::Error| match source.kind() {
            ErrorKind::UnexpectedEof => changed(),
            _ => Error::Io { name: self.name.clone(), source },
        };
        let bytes = match &self.bytes {
            Bytes::File(file) => file.bytes(span.offset(), span.len.into()).map_err(fault)?,
            Bytes::Memory(all) => {
                let from = usize::try_from(span.offset()).unwrap_or(usize::MAX);
                let end = from.saturating_add(span.len as usize);
                all.get(from..end).ok_or_else(changed)?.to_vec()
            }
        };
        if crc32fast::hash(&bytes) == span.crc { Ok(bytes) } else { Err(changed()) }
    }
}
