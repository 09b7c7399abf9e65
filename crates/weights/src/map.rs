//! Files in memory by the system's paging: the only `unsafe` of this crate. Miri, which maps no files, gets them read.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

#[cfg(not(miri))]
use memmap2::Mmap;

/// A file mapped for reading.
#[cfg(not(miri))]
pub(crate) struct Map(Mmap);

/// A file read whole; in words, so that elements are as aligned as in a map.
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
        let len = bytes.len();
        bytes.resize(len.next_multiple_of(8), 0);
        let words = bytes.as_chunks().0.iter().map(|&word| u64::from_ne_bytes(word)).collect();
        Ok(Map { words, bytes: len })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the words are as many bytes or more, all of them written, and any byte may be read as u8.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.bytes) }
    }

    pub(crate) fn read_ahead(&self, _: Range<usize>) {}

    pub(crate) fn give_back(&self, _: Range<usize>) {}
}

#[cfg(not(miri))]
impl Map {
    pub(crate) fn new(file: &File) -> io::Result<Map> {
        // SAFETY: the bytes are only ever read as plain numbers, any bit pattern of which is valid. That nobody cuts or
        // rewrites the file meanwhile cannot be checked: one that shrinks ends the process with SIGBUS, one rewritten in
        // place changes values between checks and use, none of which later code relies on for memory safety, since
        // headers are copied out as they are parsed. This project's own writes never do either: they rename a new file
        // over the old name (`atomic_write`), and the map keeps the old one.
        unsafe { Mmap::map(file) }.map(Map)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Tells the system that the bytes `range` will be needed soon.
    pub(crate) fn read_ahead(&self, range: Range<usize>) {
        #[cfg(unix)]
        // Advice: it may be refused, and nothing depends on it.
        let _ = self.0.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
    }

    /// Takes the pages of `range` out of this process; the next read brings them back from the file.
    pub(crate) fn give_back(&self, range: Range<usize>) {
        #[cfg(unix)]
        // SAFETY: the map is of a file, shared and read-only, so that dropped pages hold nothing that the file does not:
        // whoever reads them again, in this thread or another, finds the same bytes.
        let _ = unsafe {
            self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
        };
    }
}

/// Bytes of a map, which live as long as this does. Dropped, they no longer count as this process's memory.
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
