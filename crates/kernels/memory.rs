//! Memory of a GPU, and the regions of it that launches name; a region keeps its memory alive.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::{Error, Gpu, Result};

/// Memory of a GPU, on a 256-byte boundary. Given back when it and all its regions are dropped.
pub struct Memory(Arc<Allocation>);

/// What the device gave, until the last who may use it is gone.
pub(crate) struct Allocation {
    gpu: Gpu,
    addr: u64,
    bytes: usize,
}

impl Memory {
    pub(crate) fn new(gpu: Gpu, addr: u64, bytes: usize) -> Memory {
        Memory(Arc::new(Allocation { gpu, addr, bytes }))
    }

    /// Size.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Address on the device.
    pub fn addr(&self) -> u64 {
        self.0.addr
    }

    /// The GPU it is of.
    pub fn gpu(&self) -> &Gpu {
        &self.0.gpu
    }

    /// Whether a region of it exists, so that somebody else may yet use it.
    pub fn has_regions(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// `len` elements of `element` bytes from byte `start` on, of type `dtype` and shape `dims`, both for messages.
    ///
    /// # Errors
    /// [`Error::Size`] when they are not all inside.
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

    /// All of it, as bytes.
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

/// A part of a [`Memory`], which it keeps alive.
#[derive(Clone)]
pub struct Region {
    memory: Arc<Allocation>,
    /// First byte in the memory.
    start: usize,
    bytes: usize,
    dtype: &'static str,
    dims: [usize; 4],
    rank: usize,
}

impl Region {
    /// Address on the device.
    pub fn addr(&self) -> u64 {
        self.memory.addr + self.start as u64
    }

    /// Size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The GPU it is of.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.memory.gpu
    }

    /// The memory it is of, not kept alive.
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
