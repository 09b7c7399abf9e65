//! Asynchronous uploads through a ring buffer of pinned memory.
//!
//! For pageable memory the driver may read the source during the call or copy it to a buffer of its own, and
//! the call may wait for all queued work. With the ring, an upload blocks only while all slots are in use.

use std::slice;
use std::sync::Mutex;

use cudarc::driver::result::DriverError;

use super::driver::{Event, Pinned, failed};
use crate::{Error, Result};

/// Bytes of a slot: enough for full PCIe bandwidth, and small enough that many small uploads fit.
const SLOT: usize = 256 << 10;

/// The number of slots, and so of small uploads in flight.
const SLOTS: usize = 64;

/// The ring buffer.
pub(super) struct Staging {
    memory: Pinned,
    /// For each slot, the event after the copy that reads it.
    read: Vec<Event>,
    /// The index of the next slot.
    next: Mutex<usize>,
}

impl Staging {
    /// A ring buffer in the current context.
    pub(super) fn new() -> Result<Staging> {
        let event = |_| Event::new().map_err(failed("cuEventCreate"));
        let read = (0..SLOTS).map(event).collect::<Result<_>>()?;
        Ok(Staging { memory: Pinned::new(SLOT * SLOTS)?, read, next: Mutex::new(0) })
    }

    /// Copies `from` into slots and passes each to `queue`, with its offset in `from` and the event that
    /// `queue` must record after its copy. `late` converts the error of a failed wait.
    pub(super) fn each(
        &self,
        from: &[u8],
        late: impl Fn(DriverError) -> Error,
        queue: impl Fn(&[u8], usize, &Event) -> Result<()>,
    ) -> Result<()> {
        let mut next = self.next.lock().unwrap_or_else(|e| e.into_inner());
        for (i, part) in from.chunks(SLOT).enumerate() {
            let (slot, read) = (*next, &self.read[*next]);
            read.wait().map_err(&late)?;
            // SAFETY: `slot` is below SLOTS and a part has at most SLOT bytes, so the slice is inside the
            // memory. The device has read the previous contents, and only the thread that holds the lock
            // accesses the slots.
            let staged =
                unsafe { slice::from_raw_parts_mut(self.memory.start().add(slot * SLOT), part.len()) };
            staged.copy_from_slice(part);
            queue(staged, i * SLOT, read)?;
            *next = (slot + 1) % SLOTS;
        }
        Ok(())
    }
}
