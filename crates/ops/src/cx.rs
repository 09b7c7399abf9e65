use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pheye_tensor::{Arena, DType, Device, Region, Shape, Tensor};

use crate::Result;

/// What every operation is given: the device it runs on and the arena its outputs come from.
#[derive(Debug, Clone)]
pub struct Cx {
    /// Where it runs.
    pub device: Device,
    /// Where outputs and scratch memory come from.
    pub arena: Arena,
    tables: Arc<Mutex<Tables>>,
}

/// Small arrays of integers on the GPU: row numbers, spans, token ids.
#[derive(Debug, Default)]
struct Tables {
    by_content: HashMap<Vec<u32>, (Tensor, u64)>,
    /// The dropout stream: its memory, and what is in it.
    stream: Option<(Tensor, u64)>,
    clock: u64,
}

/// Tables kept for the next use; a step of training takes a few dozen.
const TABLES: usize = 1024;

impl Cx {
    /// A context with an arena of its own.
    pub fn new(device: Device) -> Cx {
        let arena = Arena::of(&device);
        Cx { device, arena, tables: Arc::default() }
    }

    /// A context on the CPU.
    pub fn cpu() -> Cx {
        Cx::new(Device::Cpu)
    }

    /// The element type of activations: f32 on the CPU, bf16 on a GPU.
    pub fn dtype(&self) -> DType {
        match self.device {
            Device::Cpu => DType::F32,
            Device::Gpu(_) => DType::Bf16,
        }
    }

    /// An activation whose every element the caller writes.
    ///
    /// # Errors
    /// When a GPU has no memory left.
    pub fn empty(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        Ok(Tensor::empty(&self.arena, shape, self.dtype())?)
    }

    /// An f32 tensor whose every element the caller writes: statistics, losses, partial sums.
    ///
    /// # Errors
    /// When a GPU has no memory left.
    pub fn empty_f32(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        Ok(Tensor::empty(&self.arena, shape, DType::F32)?)
    }

    /// An activation of zeros.
    ///
    /// # Errors
    /// When a GPU has no memory left.
    pub fn zeros(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let mut t = self.empty(shape)?;
        match &self.device {
            Device::Cpu => t.f32_mut()?.fill(0.0),
            Device::Gpu(gpu) => gpu.clear(t.region()?)?,
        }
        Ok(t)
    }

    /// `words` on the GPU, for a kernel to read. Kept by content, so that the same rows cost one upload.
    ///
    /// # Errors
    /// When the context is not on a GPU, or it has no memory left.
    pub fn table(&self, words: &[u32]) -> Result<Region> {
        let mut tables = self.tables.lock().unwrap_or_else(|e| e.into_inner());
        tables.clock += 1;
        let now = tables.clock;
        if let Some((tensor, used)) = tables.by_content.get_mut(words) {
            *used = now;
            return Ok(tensor.region()?);
        }
        if tables.by_content.len() >= TABLES {
            // The half that was used longest ago.
            let mut ages: Vec<u64> = tables.by_content.values().map(|(_, used)| *used).collect();
            let middle = ages.len() / 2;
            let (_, &mut limit, _) = ages.select_nth_unstable(middle);
            tables.by_content.retain(|_, (_, used)| *used >= limit);
        }
        let tensor = self.words(words)?;
        let region = tensor.region()?;
        tables.by_content.insert(words.to_vec(), (tensor, now));
        Ok(region)
    }

    /// A word of 64 bits on the GPU that holds `stream`: which numbers dropout draws.
    ///
    /// # Errors
    /// As [`Cx::table`].
    pub fn stream(&self, stream: u64) -> Result<Region> {
        let mut tables = self.tables.lock().unwrap_or_else(|e| e.into_inner());
        let words = [stream as u32, (stream >> 32) as u32];
        match &mut tables.stream {
            Some((tensor, held)) => {
                if *held != stream {
                    self.write_words(&words, tensor)?;
                    *held = stream;
                }
                Ok(tensor.region()?)
            }
            None => {
                let tensor = self.words(&words)?;
                let region = tensor.region()?;
                tables.stream = Some((tensor, stream));
                Ok(region)
            }
        }
    }

    fn words(&self, words: &[u32]) -> Result<Tensor> {
        let tensor = Tensor::empty(&self.arena, [words.len().max(1)], DType::F32)?;
        self.write_words(words, &tensor)?;
        Ok(tensor)
    }

    fn write_words(&self, words: &[u32], to: &Tensor) -> Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let region = to.region()?;
        if let Device::Gpu(gpu) = &self.device {
            gpu.upload(&bytes, region)?;
        }
        Ok(())
    }
}
