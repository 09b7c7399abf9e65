//! The memory behind a tensor: an aligned host allocation, GPU memory, or bytes of another owner such as a
//! memory-mapped file.

use std::sync::{Arc, Mutex, Weak};

use pheye_kernels::{Gpu, Memory};

use crate::Result;
use crate::pool::{Line, Lines, Pool};

/// Memory on a device. It returns to its arena when it is dropped.
#[derive(Debug)]
pub enum Buffer {
    /// Host memory.
    Cpu(CpuBuffer),
    /// GPU memory.
    Gpu(GpuBuffer),
    /// Host memory of another owner, such as a memory-mapped file. It is read in place and copied before the
    /// first write.
    Shared(SharedBuffer),
}

/// Bytes of another owner, which must not change or move while this value exists.
#[derive(Clone)]
pub struct SharedBuffer(pub(crate) Arc<dyn AsRef<[u8]> + Send + Sync>);

impl SharedBuffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl std::fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedBuffer({} bytes)", self.bytes().len())
    }
}

/// GPU memory.
#[derive(Debug)]
pub struct GpuBuffer {
    /// `None` only during drop.
    pub(crate) memory: Option<Memory>,
    pub(crate) home: Weak<Mutex<Pool>>,
}

impl Drop for GpuBuffer {
    fn drop(&mut self) {
        if let (Some(pool), Some(memory)) = (self.home.upgrade(), self.memory.take()) {
            pool.lock().unwrap_or_else(|e| e.into_inner()).put_gpu(memory);
        }
    }
}

/// Host memory, aligned to 64 bytes.
pub struct CpuBuffer {
    pub(crate) lines: Lines,
    pub(crate) home: Weak<Mutex<Pool>>,
}

impl CpuBuffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.lines)
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}

impl std::fmt::Debug for CpuBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CpuBuffer({} bytes)", self.lines.len() * size_of::<Line>())
    }
}

impl Drop for CpuBuffer {
    fn drop(&mut self) {
        if let Some(pool) = self.home.upgrade() {
            let lines = std::mem::take(&mut self.lines);
            // A poisoned lock only means that another thread panicked while holding it; the lists are still valid.
            pool.lock().unwrap_or_else(|e| e.into_inner()).put(lines);
        }
    }
}

/// GPU memory outside any arena.
pub(crate) fn detached_gpu(gpu: &Gpu, bytes: usize) -> Result<Arc<Buffer>> {
    Ok(Arc::new(Buffer::Gpu(GpuBuffer { memory: Some(gpu.alloc(bytes)?), home: Weak::new() })))
}

/// Host memory outside any arena.
///
/// # Panics
/// When the system is out of memory.
pub(crate) fn detached(bytes: usize) -> Arc<Buffer> {
    let Some(lines) = Lines::zeroed(bytes.div_ceil(size_of::<Line>())) else {
        panic!("out of memory: {bytes} bytes more are needed");
    };
    Arc::new(Buffer::Cpu(CpuBuffer { lines, home: Weak::new() }))
}
