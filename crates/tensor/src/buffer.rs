use std::sync::{Arc, Mutex, Weak};

use bytemuck::{Pod, Zeroable};

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

/// A buffer of its own, outside any arena.
pub(crate) fn detached(bytes: usize) -> Arc<Buffer> {
    let lines = bytemuck::zeroed_vec(bytes.div_ceil(size_of::<Line>()));
    Arc::new(Buffer::Cpu(CpuBuffer { lines, home: Weak::new() }))
}
