use std::fmt;

use crate::{Gpu, Result};

/// Memory of a GPU, on a 256-byte boundary. Given back when dropped.
pub struct Memory {
    gpu: Gpu,
    addr: u64,
    bytes: usize,
}

impl Memory {
    pub(crate) fn new(gpu: Gpu, addr: u64, bytes: usize) -> Memory {
        Memory { gpu, addr, bytes }
    }

    /// Size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The GPU it is of.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// `len` elements of `element` bytes from byte `start` on, of type `dtype` and shape `dims`, both for messages.
    ///
    /// # Errors
    /// [`crate::Error::Size`] when they are not all inside.
    pub fn region(
        &self,
        start: usize,
        dtype: &'static str,
        element: usize,
        dims: &[usize],
    ) -> Result<Region> {
        let bytes = dims.iter().product::<usize>() * element;
        if start + bytes > self.bytes {
            return Err(crate::Error::Size { what: "a view", bytes: start + bytes, found: self.bytes });
        }
        let mut all = [1; 4];
        let rank = dims.len().min(4);
        all[..rank].copy_from_slice(&dims[..rank]);
        Ok(Region { addr: self.addr + start as u64, bytes, dtype, dims: all, rank })
    }

    /// All of it, as bytes.
    pub fn all(&self) -> Region {
        Region { addr: self.addr, bytes: self.bytes, dtype: "u8", dims: [self.bytes, 1, 1, 1], rank: 1 }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.gpu.free(self.addr, self.bytes);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes on {})", self.bytes, self.gpu)
    }
}

/// A part of a [`Memory`]. It does not keep the memory alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Address on the device.
    pub addr: u64,
    /// Size.
    pub bytes: usize,
    dtype: &'static str,
    dims: [usize; 4],
    rank: usize,
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.dtype, &self.dims[..self.rank])
    }
}

/// A region of so many bytes, of nothing.
#[cfg(test)]
pub(crate) fn region_for_tests(bytes: usize) -> Region {
    Region { addr: 0, bytes, dtype: "u8", dims: [bytes, 1, 1, 1], rank: 1 }
}
