//! `cp.async`: copies from global to shared memory that are performed only when the program waits for them.

use super::Block;
use crate::Kind;

/// The asynchronous copies of a thread that have not been performed yet.
#[derive(Default)]
pub(super) struct Copies {
    open: Vec<Copy>,
    committed: Vec<Vec<Copy>>,
}

#[derive(Clone, Copy)]
struct Copy {
    to: usize,
    from: usize,
    bytes: usize,
    valid: usize,
}

impl Block<'_> {
    /// Issues a cp.async.
    pub(crate) fn copy(&mut self, to: usize, from: usize, bytes: usize, valid: usize) -> Result<(), Kind> {
        if !matches!(bytes, 4 | 8 | 16) || valid > bytes {
            return Err(Kind::CopySize { bytes, valid });
        }
        let Some(offset) = self.shared.offset(to) else {
            let near = "which is not shared memory".to_owned();
            return Err(Kind::OutOfBounds { what: "cp.async", addr: to, bytes, near });
        };
        for addr in [to, from] {
            if (addr == to || valid > 0) && !addr.is_multiple_of(bytes) {
                return Err(Kind::Misaligned { what: "cp.async", addr, bytes });
            }
        }
        if valid > 0 {
            self.global(from, valid, false)?;
        }
        self.shared.depart(offset, bytes, self.current)?;
        self.threads[self.current].copies.open.push(Copy { to, from, bytes, valid });
        Ok(())
    }

    /// Commits the open copies as a group.
    pub(crate) fn commit(&mut self) {
        let copies = &mut self.threads[self.current].copies;
        let group = std::mem::take(&mut copies.open);
        copies.committed.push(group);
    }

    /// Performs the copies of all groups but the latest `pending`.
    pub(crate) fn wait(&mut self, pending: usize) {
        let committed = &mut self.threads[self.current].copies.committed;
        let landing = committed.len().saturating_sub(pending);
        let landed: Vec<Copy> = committed.drain(..landing).flatten().collect();
        for Copy { to, from, bytes, valid } in landed {
            let offset = to as isize - self.shared.base() as isize;
            // SAFETY: both addresses were checked when the copy was issued: `bytes` of shared memory, and
            // `valid` bytes of a buffer of the launch.
            unsafe {
                std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, valid);
                std::ptr::write_bytes((to + valid) as *mut u8, 0, bytes - valid);
            }
            self.shared.land(offset, bytes, self.current);
        }
    }
}
