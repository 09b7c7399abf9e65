//! The buffers of a launch: their bounds, their access rights, which output elements were written, and races on those that are
//! updated.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::Kind;
use crate::races::{Race, Shadow, Touch, Words};

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

/// The buffers of a launch.
pub(crate) struct Globals<'a> {
    ranges: Vec<(&'a Range, History)>,
    words: Words,
}

/// What is known about the accesses to a buffer.
enum History {
    /// Nothing, for one that is only read.
    Inert,
    /// For an output, for each GRAIN bytes the index + 1 of the block that wrote them, or 0 for none.
    Writers(Vec<AtomicU32>),
    /// For one that is updated.
    Shadow(Shadow),
}

/// Whether the `bytes` bytes from `addr` on are inside the `size` bytes from `start` on, for any values.
pub(crate) fn inside(addr: usize, bytes: usize, start: usize, size: usize) -> bool {
    addr.checked_sub(start).and_then(|offset| size.checked_sub(offset)).is_some_and(|rest| bytes <= rest)
}

impl<'a> Globals<'a> {
    pub(crate) fn new(ranges: &'a [Range]) -> Globals<'a> {
        let history = |r: &Range| match r.access {
            Access::Read => History::Inert,
            Access::Write => {
                History::Writers((0..r.bytes.div_ceil(GRAIN)).map(|_| AtomicU32::new(0)).collect())
            }
            Access::Update => History::Shadow(Shadow::new(r.bytes)),
        };
        Globals { ranges: ranges.iter().map(|r| (r, history(r))).collect(), words: Words::default() }
    }

    /// Whether these bytes are inside a buffer.
    pub(crate) fn contains(&self, addr: usize, bytes: usize) -> bool {
        self.ranges.iter().any(|(r, _)| inside(addr, bytes, r.addr, r.bytes))
    }

    /// Checks and records the access `now`. `ordered` tells whether an earlier access happens before it.
    pub(crate) fn access(
        &self,
        addr: usize,
        bytes: usize,
        write: bool,
        now: Touch,
        ordered: impl Fn(Touch) -> bool,
    ) -> Result<(), Kind> {
        let what = if write { "write" } else { "read" };
        let (mut allowed, mut forbidden) = (false, None);
        // A buffer may be given twice, as one that is read and as one that is updated.
        for (range, history) in &self.ranges {
            if !inside(addr, bytes, range.addr, range.bytes) {
                continue;
            }
            let (offset, buffer) = (addr - range.addr, || range.label.clone());
            match (history, write) {
                (History::Inert, true) => forbidden = Some((range, "read-only")),
                (History::Writers(_), false) => forbidden = Some((range, "write-only")),
                (History::Inert, false) => allowed = true,
                (History::Writers(writers), true) => {
                    allowed = true;
                    for w in &writers[offset / GRAIN..(offset + bytes).div_ceil(GRAIN)] {
                        let other = w.swap(now.block + 1, Ordering::Relaxed);
                        if other != 0 && other != now.block + 1 {
                            return Err(Kind::WrittenTwice { buffer: buffer(), offset, other: other - 1 });
                        }
                    }
                }
                (History::Shadow(shadow), _) => {
                    allowed = true;
                    let race = shadow.access(offset, bytes, write, now, &ordered);
                    race.map_err(|Race { by: Touch { block, thread, .. }, other, offset }| {
                        Kind::GlobalRace { what, other, buffer: buffer(), offset, block, thread }
                    })?;
                }
            }
        }
        match forbidden {
            _ if allowed => Ok(()),
            Some((range, access)) => Err(Kind::Access { what, buffer: range.label.clone(), access }),
            None => Err(Kind::OutOfBounds { what, addr, bytes, near: self.near(addr) }),
        }
    }

    /// Checks an atomic operation on the word at `addr`. Atomic operations do not race with one another; races with other accesses
    /// to the word are not looked for.
    pub(crate) fn atomic(&self, addr: usize) -> Result<(), Kind> {
        let updates = |(r, _): &&(&Range, _)| r.access == Access::Update && inside(addr, 4, r.addr, r.bytes);
        if self.ranges.iter().any(|r| updates(&r)) {
            return Ok(());
        }
        match self.ranges.iter().find(|(r, _)| inside(addr, 4, r.addr, r.bytes)) {
            Some((r, _)) => {
                let access = if r.access == Access::Read { "read-only" } else { "write-only" };
                Err(Kind::Access { what: "atomic", buffer: r.label.clone(), access })
            }
            None => Err(Kind::OutOfBounds { what: "atomic", addr, bytes: 4, near: self.near(addr) }),
        }
    }

    /// The words that atomic operations of the launch used.
    pub(crate) fn words(&self) -> &Words {
        &self.words
    }

    fn near(&self, addr: usize) -> String {
        let distance = |r: &&Range| {
            if addr < r.addr { r.addr - addr } else { (addr - r.addr).saturating_sub(r.bytes) }
        };
        match self.ranges.iter().map(|(r, _)| *r).min_by_key(distance) {
            None => "and the launch names no buffer".to_owned(),
            Some(r) if addr < r.addr => format!("{} bytes before `{}`", r.addr - addr, r.label),
            Some(r) => format!("at byte {} of `{}`, which has {}", addr - r.addr, r.label, r.bytes),
        }
    }

    /// Checks that every element of every output was written.
    pub(crate) fn all_written(&self) -> Result<(), Kind> {
        for (range, history) in &self.ranges {
            let History::Writers(writers) = history else { continue };
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

    fn access(globals: &Globals, addr: usize, bytes: usize, write: bool, block: u32) -> Result<(), Kind> {
        let now = Touch { block, thread: 0, time: 0 };
        globals.access(addr, bytes, write, now, |by| by.block == block)
    }

    #[test]
    fn a_buffer_that_is_read_and_updated() {
        let ranges = [range(Access::Read), range(Access::Update)];
        let globals = Globals::new(&ranges);
        access(&globals, 1024, 4, false, 0).unwrap();
        let race = access(&globals, 1024, 4, true, 1);
        assert!(
            matches!(race, Err(Kind::GlobalRace { what: "write", other: "read", block: 0, .. })),
            "{race:?}"
        );
        globals.atomic(1028).unwrap();
        assert!(matches!(globals.atomic(1085), Err(Kind::OutOfBounds { what: "atomic", .. })));
    }

    #[test]
    fn no_address_wraps_into_a_buffer() {
        let ranges = [range(Access::Update)];
        let globals = Globals::new(&ranges);
        assert_eq!(access(&globals, 1024 + 60, 4, true, 0), Ok(()));
        for (addr, bytes) in
            [(usize::MAX - 3, 8), (usize::MAX, 1 + 1024 + 8), (1024, usize::MAX), (1088, usize::MAX - 1087)]
        {
            let outcome = access(&globals, addr, bytes, true, 0);
            assert!(matches!(outcome, Err(Kind::OutOfBounds { .. })), "{addr:#x} {bytes}: {outcome:?}");
            assert!(!globals.contains(addr, bytes));
        }
    }

    #[test]
    fn an_output_is_written_whole_by_one_block_each() {
        let ranges = [range(Access::Write)];
        let globals = Globals::new(&ranges);
        assert!(matches!(
            access(&globals, 1024, 4, false, 0),
            Err(Kind::Access { access: "write-only", .. })
        ));
        (0..15).for_each(|i| access(&globals, 1024 + 4 * i, 4, true, i as u32).unwrap());
        assert_eq!(globals.all_written(), Err(Kind::NeverWritten { buffer: "x".to_owned(), offset: 60 }));
        assert!(matches!(access(&globals, 1024, 4, true, 9), Err(Kind::WrittenTwice { other: 0, .. })));
        access(&globals, 1084, 4, true, 15).unwrap();
        assert_eq!(globals.all_written(), Ok(()));
    }
}
