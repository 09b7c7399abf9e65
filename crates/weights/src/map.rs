//! Memory-mapped files, and bytes that are part of the program: the only `unsafe` code of this crate. Miri cannot map
//! files, so under Miri they are read.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

#[cfg(not(miri))]
use memmap2::Mmap;

/// The bytes of a file.
#[cfg(not(miri))]
pub(crate) enum Map {
    /// A file mapped for reading.
    File(Mmap),
    /// A file that is embedded in the program.
    Embedded(&'static [u8]),
}

/// A file read as a whole, into u64 so that elements are aligned as in a mapping.
#[cfg(miri)]
pub(crate) struct Map {
    words: Vec<u64>,
    bytes: usize,
}

#[cfg(miri)]
impl Map {
    pub(crate) fn new(mut file: &File) -> io::Result<Map> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(Map::aligned(bytes))
    }

    pub(crate) fn embedded(bytes: &'static [u8]) -> Map {
        Map::aligned(bytes.to_vec())
    }

    fn aligned(mut bytes: Vec<u8>) -> Map {
        let len = bytes.len();
        bytes.resize(len.next_multiple_of(8), 0);
        let words = bytes.as_chunks().0.iter().map(|&word| u64::from_ne_bytes(word)).collect();
        Map { words, bytes: len }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the vector holds at least `bytes` initialized bytes, and any byte is a valid u8.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.bytes) }
    }

    pub(crate) fn read_ahead(&self, _: Range<usize>) {}

    pub(crate) fn give_back(&self, _: Range<usize>) {}
}

#[cfg(not(miri))]
impl Map {
    pub(crate) fn new(file: &File) -> io::Result<Map> {
        // SAFETY: the bytes are read only as integers and floats, for which every bit pattern is valid. That
        // no other process truncates or modifies the file cannot be checked. If the file shrinks, the process
        // ends with SIGBUS. If it is modified, values change between check and use, but memory safety does
        // not depend on them, because headers are copied while they are parsed. This project itself does
        // neither: `atomic_write` renames a new file over the old name, and the mapping keeps the old file.
        unsafe { Mmap::map(file) }.map(Map::File)
    }

    pub(crate) fn embedded(bytes: &'static [u8]) -> Map {
        Map::Embedded(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Map::File(map) => map,
            Map::Embedded(bytes) => bytes,
        }
    }

    /// Advises the system that the bytes of `range` will be needed soon.
    pub(crate) fn read_ahead(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Map::File(map) = self {
            // Errors are ignored, because this is only advice.
            let _ = map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        }
    }

    /// Removes the pages of `range` from the process's resident memory; a later read loads them from the
    /// file.
    pub(crate) fn give_back(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Map::File(map) = self {
            // SAFETY: the mapping is shared, read-only and backed by the file, so a removed page contains nothing
            // but the bytes of the file, and later reads in any thread see the same bytes.
            let _ = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
        }
    }
}

/// A byte range of a mapping, which it keeps alive. On drop its pages are released from resident memory.
pub(crate) struct Mapped {
    pub(crate) map: Arc<Map>,
    pub(crate) range: Range<usize>,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.map.bytes()[self.range.clone()]
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.map.give_back(self.range.clone());
    }
}
