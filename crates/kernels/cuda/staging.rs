//! Uploads that return before the device has read them: the bytes wait in pinned memory, which is used round and round.
//!
//! Memory that is not pinned is read by the driver during the call, or by the device later through a copy of the driver's own;
//! which of the two is its secret, and the call may wait for all queued work. Here the host waits only when the ring is full.

use std::slice;
use std::sync::Mutex;

use cudarc::driver::result::DriverError;

use super::driver::{Event, Pinned, failed};
use crate::{Error, Result};

/// Bytes of a slot: large enough for the link's full speed, small enough that tables and ids do not fill the ring.
const SLOT: usize = 256 << 10;

/// Slots of the ring: so many small uploads can be under way.
const SLOTS: usize = 64;

/// The ring.
pub(super) struct Staging {
    memory: Pinned,
    /// For each slot, when the device has read it.
    read: Vec<Event>,
    /// The next slot.
    next: Mutex<usize>,
}

impl Staging {
    /// A ring in the current context.
    pub(super) fn new() -> Result<Staging> {
        let event = |_| Event::new().map_err(failed("cuEventCreate"));
        let read = (0..SLOTS).map(event).collect::<Result<_>>()?;
        Ok(Staging { memory: Pinned::new(SLOT * SLOTS)?, read, next: Mutex::new(0) })
    }

    /// Puts `from` into slots and gives each to `queue`, with the place it is from in `from` and the event that `queue` records
    /// after the copy. `late` makes an error of a failed wait.
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
            // SAFETY: slot is below SLOTS and a part at most SLOT long, so it lies inside the memory. The device has read what
            // was here before, and this thread alone writes slots while it holds the lock; nobody else sees them.
            let staged =
                unsafe { slice::from_raw_parts_mut(self.memory.start().add(slot * SLOT), part.len()) };
            staged.copy_from_slice(part);
            queue(staged, i * SLOT, read)?;
            *next = (slot + 1) % SLOTS;
        }
        Ok(())
    }
}
