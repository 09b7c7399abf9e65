//! Device memory: allocations, and the regions of them that launches use. A region keeps its allocation
//! alive.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::{Error, Gpu, Result};

/// An allocation of device memory, aligned to 256 bytes. It is freed when it and all its regions are dropped.
pub struct Memory(Arc<Allocation>);

/// The allocation itself, shared by a `Memory` and its regions; dropping the last reference frees it.
pub(crate) struct Allocation {
    gpu: Gpu,
    addr: u64,
    bytes: usize,
}

impl Memory {
    pub(crate) fn new(gpu: Gpu, addr: u64, bytes: usize) -> Memory {
        Memory(Arc::new(Allocation { gpu, addr, bytes }))
    }

    /// The size in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// The device address.
    pub fn addr(&self) -> u64 {
        self.0.addr
    }

    /// The GPU that it is on.
    pub fn gpu(&self) -> &Gpu {
        &self.0.gpu
    }

    /// Whether any region of it exists, so that it may still be in use.
    pub fn has_regions(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// The region of an array of shape `dims`, with elements of `element` bytes each, from byte `start` on.
    /// `dtype` and the first four of `dims` appear in error messages.
    ///
    /// # Errors
    /// Returns [`Error::Size`] if the array exceeds the allocation.
    pub fn region(
        &self,
        start: usize,
        dtype: &'static str,
        element: usize,
        dims: &[usize],
    ) -> Result<Region> {
        let bytes = dims.iter().try_fold(element, |bytes, &dim| bytes.checked_mul(dim));
        let end = bytes.and_then(|bytes| bytes.checked_add(start));
        let (Some(bytes), Some(end)) = (bytes, end) else {
            return Err(Error::Size { what: "a view", bytes: usize::MAX, found: self.bytes() });
        };
        if end > self.bytes() {
            return Err(Error::Size { what: "a view", bytes: end, found: self.bytes() });
        }
        let mut all = [1; 4];
        let rank = dims.len().min(4);
        all[..rank].copy_from_slice(&dims[..rank]);
        Ok(Region { memory: self.0.clone(), start, bytes, dtype, dims: all, rank })
    }

    /// The region of the whole allocation, as bytes.
    pub fn all(&self) -> Region {
        let bytes = self.bytes();
        Region { memory: self.0.clone(), start: 0, bytes, dtype: "u8", dims: [bytes, 1, 1, 1], rank: 1 }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.gpu.free(self.addr, self.bytes);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes on {})", self.bytes(), self.gpu())
    }
}

/// A byte range of a [`Memory`], which it keeps alive.
#[derive(Clone)]
pub struct Region {
    memory: Arc<Allocation>,
    /// The first byte, relative to the allocation.
    start: usize,
    bytes: usize,
    dtype: &'static str,
    dims: [usize; 4],
    rank: usize,
}

impl Region {
    /// The device address.
    pub fn addr(&self) -> u64 {
        self.memory.addr + self.start as u64
    }

    /// The size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The GPU that it is on.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.memory.gpu
    }

    /// A weak reference to its allocation.
    pub(crate) fn memory(&self) -> Weak<Allocation> {
        Arc::downgrade(&self.memory)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.dtype, &self.dims[..self.rank])
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({self} at {:#x} on {})", self.addr(), self.gpu())
    }
}
