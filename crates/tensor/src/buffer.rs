use std::sync::{Arc, Mutex, Weak};

use bytemuck::{Pod, Zeroable};
use pheye_kernels::{Gpu, Memory};

use crate::Result;
use crate::arena::Pool;

/// 64 bytes on a 64-byte boundary: a cache line, and a multiple of every SIMD width.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

/// Memory on a device. Dropped, it goes back to the arena it came from.
#[derive(Debug)]
pub enum Buffer {
    /// Host memory.
    Cpu(CpuBuffer),
    /// Memory of a GPU.
    Gpu(GpuBuffer),
}

/// Memory of a GPU.
#[derive(Debug)]
pub struct GpuBuffer {
    /// Gone only while the buffer is dropped.
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
    pub(crate) lines: Vec<Line>,
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
            // A poisoned lock only means that another thread panicked while holding it; its lists stay valid.
            pool.lock().unwrap_or_else(|e| e.into_inner()).put(lines);
        }
    }
}

/// Memory of `gpu` of its own, outside any arena.
pub(crate) fn detached_gpu(gpu: &Gpu, bytes: usize) -> Result<Arc<Buffer>> {
    Ok(Arc::new(Buffer::Gpu(GpuBuffer { memory: Some(gpu.alloc(bytes)?), home: Weak::new() })))
}

/// Host memory of its own, outside any arena.
pub(crate) fn detached(bytes: usize) -> Arc<Buffer> {
    let lines = bytemuck::zeroed_vec(bytes.div_ceil(size_of::<Line>()));
    Arc::new(Buffer::Cpu(CpuBuffer { lines, home: Weak::new() }))
}
