//! The buffers of a launch: their bounds, their access rights, and which output elements were written.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::Kind;

/// How a kernel accesses a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The kernel only reads it.
    Read,
    /// The kernel writes every element, each from one block, and reads none.
    Write,
    /// The kernel reads and writes it, perhaps only in part.
    Update,
}

/// A buffer that is passed to a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The address of its first byte.
    pub addr: usize,
    /// Its size.
    pub bytes: usize,
    /// How the kernel accesses it.
    pub access: Access,
    /// Its name in error messages.
    pub label: String,
}

/// Writes to outputs are recorded in units of this many bytes, the size of the smallest element.
const GRAIN: usize = 2;

/// The buffers of a launch. For each output, `writers` has one entry per unit of GRAIN bytes: the index + 1
/// of the block that wrote it, or 0 for none.
pub(crate) struct Globals<'a> {
    ranges: &'a [Range],
    writers: Vec<Vec<AtomicU32>>,
}

/// Whether the `bytes` bytes from `addr` on are inside the `size` bytes from `start` on, for any values.
pub(crate) fn inside(addr: usize, bytes: usize, start: usize, size: usize) -> bool {
    addr.checked_sub(start).and_then(|offset| size.checked_sub(offset)).is_some_and(|rest| bytes <= rest)
}

impl<'a> Globals<'a> {
    pub(crate) fn new(ranges: &'a [Range]) -> Globals<'a> {
        let writers = |r: &Range| match r.access {
            Access::Write => (0..r.bytes.div_ceil(GRAIN)).map(|_| AtomicU32::new(0)).collect(),
            _ => Vec::new(),
        };
        Globals { ranges, writers: ranges.iter().map(writers).collect() }
    }

    /// Whether these bytes are inside a buffer.
    pub(crate) fn contains(&self, addr: usize, bytes: usize) -> bool {
        self.ranges.iter().any(|r| inside(addr, bytes, r.addr, r.bytes))
    }

    pub(crate) fn access(&self, addr: usize, bytes: usize, write: bool, block: u32) -> Result<(), Kind> {
        let what = if write { "write" } else { "read" };
        let mut forbidden = None;
        for (range, writers) in self.ranges.iter().zip(&self.writers) {
            if !inside(addr, bytes, range.addr, range.bytes) {
                continue;
            }
            match (range.access, write) {
                (Access::Read, true) => forbidden = Some((range, "read-only")),
                (Access::Write, false) => forbidden = Some((range, "write-only")),
                (Access::Write, true) => {
                    let offset = addr - range.addr;
                    for w in &writers[offset / GRAIN..(offset + bytes).div_ceil(GRAIN)] {
                        let other = w.swap(block + 1, Ordering::Relaxed);
                        if other != 0 && other != block + 1 {
                            let buffer = range.label.clone();
                            return Err(Kind::WrittenTwice { buffer, offset, other: other - 1 });
                        }
                    }
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
        match forbidden {
            Some((range, access)) => Err(Kind::Access { what, buffer: range.label.clone(), access }),
            None => Err(Kind::OutOfBounds { what, addr, bytes, near: self.near(addr) }),
        }
    }

    fn near(&self, addr: usize) -> String {
        let distance = |r: &&Range| {
            if addr < r.addr { r.addr - addr } else { (addr - r.addr).saturating_sub(r.bytes) }
        };
        match self.ranges.iter().min_by_key(distance) {
            None => "and the launch names no buffer".to_owned(),
            Some(r) if addr < r.addr => format!("{} bytes before `{}`", r.addr - addr, r.label),
            Some(r) => format!("at byte {} of `{}`, which has {}", addr - r.addr, r.label, r.bytes),
        }
    }

    /// Checks that every element of every output was written.
    pub(crate) fn all_written(&self) -> Result<(), Kind> {
        for (range, writers) in self.ranges.iter().zip(&self.writers) {
            if let Some(i) = writers.iter().position(|w| w.load(Ordering::Relaxed) == 0) {
                return Err(Kind::NeverWritten { buffer: range.label.clone(), offset: i * GRAIN });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(access: Access) -> Range {
        Range { addr: 1024, bytes: 64, access, label: "x".to_owned() }
    }

    #[test]
    fn no_address_wraps_into_a_buffer() {
        let ranges = [range(Access::Update)];
        let globals = Globals::new(&ranges);
        assert_eq!(globals.access(1024 + 60, 4, true, 0), Ok(()));
        for (addr, bytes) in
            [(usize::MAX - 3, 8), (usize::MAX, 1 + 1024 + 8), (1024, usize::MAX), (1088, usize::MAX - 1087)]
        {
            let outcome = globals.access(addr, bytes, true, 0);
            assert!(matches!(outcome, Err(Kind::OutOfBounds { .. })), "{addr:#x} {bytes}: {outcome:?}");
            assert!(!globals.contains(addr, bytes));
        }
    }

    #[test]
    fn an_output_is_written_whole_by_one_block_each() {
        let ranges = [range(Access::Write)];
        let globals = Globals::new(&ranges);
        assert!(matches!(globals.access(1024, 4, false, 0), Err(Kind::Access { access: "write-only", .. })));
        (0..15).for_each(|i| globals.access(1024 + 4 * i, 4, true, i as u32).unwrap());
        assert_eq!(globals.all_written(), Err(Kind::NeverWritten { buffer: "x".to_owned(), offset: 60 }));
        assert!(matches!(globals.access(1024, 4, true, 9), Err(Kind::WrittenTwice { other: 0, .. })));
        globals.access(1084, 4, true, 15).unwrap();
        assert_eq!(globals.all_written(), Ok(()));
    }
}
