//! The context that every operation takes: the device, the arena, small integer tables in GPU memory, and recorded
//! work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use pheye_cpu::par;
use pheye_tensor::{Arena, DType, Device, GpuError, Graph, Region, Shape, Tensor};

use crate::{Error, Result};

/// The context that every operation takes: the device it runs on and the arena that provides its outputs.
#[derive(Debug, Clone)]
pub struct Cx {
    /// The device that operations run on.
    pub device: Device,
    /// The arena that provides outputs and scratch memory.
    pub arena: Arena,
    tables: Arc<Mutex<Tables>>,
    /// The tables of work in a dry run or a recording, in order of first use, because their contents change from one
    /// replay to the next.
    slots: Arc<Mutex<Option<Slots>>>,
    /// Whether a backward may follow.
    saves: bool,
}

/// Cache of small integer arrays on the GPU, such as row numbers, spans and token ids.
#[derive(Debug, Default)]
struct Tables {
    by_content: HashMap<Vec<u32>, (Tensor, u64)>,
    clock: u64,
}

/// Tables of recorded work: memory that stays the same in all replays, and the contents for the next one.
#[derive(Debug, Default)]
struct Slots {
    memory: Vec<Tensor>,
    words: Vec<Vec<u32>>,
}

/// Recordings by fingerprint, and the memory of their tables.
#[derive(Default)]
pub struct Graphs {
    recorded: HashMap<u64, Graph>,
    memory: Vec<Tensor>,
}

/// Maximum number of recordings. Work with more different shapes is not worth recording.
const RECORDINGS: usize = 64;

impl Graphs {
    /// Number of recordings.
    pub fn len(&self) -> usize {
        self.recorded.len()
    }

    /// Whether there are no recordings.
    pub fn is_empty(&self) -> bool {
        self.recorded.is_empty()
    }
}

impl std::fmt::Debug for Graphs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Graphs({})", self.len())
    }
}

/// Maximum number of cached tables; a training step uses a few dozen.
const TABLES: usize = 1024;

impl Cx {
    /// A context with its own arena.
    pub fn new(device: Device) -> Cx {
        let arena = Arena::of(&device);
        Cx { device, arena, tables: Arc::default(), slots: Arc::default(), saves: true }
    }

    /// A context on the CPU.
    pub fn cpu() -> Cx {
        Cx::new(Device::Cpu)
    }

    /// The same context for work without a backward: activations that only backward reads, such as the input of a fused
    /// GELU, are not written.
    pub fn inference(&self) -> Cx {
        Cx { saves: false, ..self.clone() }
    }

    /// Whether a backward may follow.
    pub(crate) fn saves(&self) -> bool {
        self.saves
    }

    /// The element type of activations: f32 on the CPU, bf16 on a GPU.
    pub fn dtype(&self) -> DType {
        match self.device {
            Device::Cpu => DType::F32,
            Device::Gpu(_) => DType::Bf16,
        }
    }

    /// An uninitialised activation; the caller writes every element.
    ///
    /// # Errors
    /// [`Error::Tensor`] when a GPU is out of memory.
    pub fn empty(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        Ok(Tensor::empty(&self.arena, shape, self.dtype())?)
    }

    /// An uninitialised f32 tensor, for statistics, losses and partial sums; the caller writes every element.
    ///
    /// # Errors
    /// [`Error::Tensor`] when a GPU is out of memory.
    pub fn empty_f32(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        Ok(Tensor::empty(&self.arena, shape, DType::F32)?)
    }

    /// An activation of zeros.
    ///
    /// # Errors
    /// [`Error::Tensor`] when a GPU is out of memory.
    pub fn zeros(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let mut t = self.empty(shape)?;
        match &self.device {
            Device::Cpu => t.f32_mut()?.fill(0.0),
            Device::Gpu(gpu) => gpu.clear(t.region()?)?,
        }
        Ok(t)
    }

    /// `t` on this context's device: `t` itself if it is there, otherwise a copy in arena memory.
    ///
    /// # Errors
    /// [`Error::Tensor`] when a GPU is out of memory or fails, or `t` is on a GPU and the context is not.
    pub fn upload(&self, t: &Tensor) -> Result<Tensor> {
        match &self.device {
            Device::Gpu(gpu) if t.gpu().is_none() => {
                let out = Tensor::empty(&self.arena, t.shape(), t.dtype())?;
                gpu.upload(t.host_bytes()?, out.region()?)?;
                Ok(out)
            }
            _ => Ok(t.to_device(&self.device)?),
        }
    }

    /// Uploads a table of u32 for a kernel to read. Tables are cached by content, so equal tables are uploaded only
    /// once.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the context is on the CPU or the GPU is out of memory.
    pub fn table(&self, words: &[u32]) -> Result<Region> {
        if let Some(slots) = &mut *lock(&self.slots) {
            return self.slot(slots, words);
        }
        if let Some(tensor) = lock(&self.tables).find(words) {
            return Ok(tensor.region()?);
        }
        // The lock is released first: allocating may make this thread wait for another one, which may also need a
        // table.
        let tensor = self.words(words)?;
        let region = tensor.region()?;
        lock(&self.tables).keep(words, tensor);
        Ok(region)
    }

    /// Uploads the 64-bit offset `rng_offset` of the Philox generator, which determines the dropout masks.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the context is on the CPU or the GPU is out of memory.
    pub fn rng_offset(&self, rng_offset: u64) -> Result<Region> {
        self.table(&[rng_offset as u32, (rng_offset >> 32) as u32])
    }

    /// The next table of the work, or an earlier one with the same content.
    fn slot(&self, slots: &mut Slots, words: &[u32]) -> Result<Region> {
        let at = match slots.words.iter().position(|w| w == words) {
            Some(at) => at,
            None => {
                slots.words.push(words.to_vec());
                slots.words.len() - 1
            }
        };
        let large_enough = slots.memory.get(at).is_some_and(|t| t.shape().elements() >= words.len());
        if !large_enough {
            let memory = Tensor::empty(&self.arena, [words.len().next_power_of_two()], DType::F32)?;
            if at < slots.memory.len() { slots.memory[at] = memory } else { slots.memory.push(memory) }
        }
        Ok(slots.memory[at].region()?)
    }

    /// Runs `work` in rayon's thread pool on the CPU, and on the calling thread for a GPU. Wrap a whole forward pass in
    /// it, so that its operations do not each wait for the pool to wake up.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match self.device {
            Device::Cpu => par::inside(work),
            Device::Gpu(_) => work(),
        }
    }

    /// Runs `work`. On a GPU its launches are recorded (as a CUDA graph) the first time, and later runs with the same
    /// launches on the same memory replay the recording with a single call. The tables that `work` uploads may differ
    /// from run to run; they belong to the context that `work` is given. `work` may be called several times in one run.
    /// It must neither read results nor wait for other threads that use the GPU. On the CPU this is [`Cx::install`].
    ///
    /// # Errors
    /// The errors of `work`, and [`Error::Tensor`] when recording or replaying fails; it holds
    /// [`pheye_tensor::GpuError::Unsupported`] when `work` uploads or downloads.
    pub fn replay<T: Send, E: From<Error> + Send>(
        &self,
        graphs: &mut Graphs,
        mut work: impl FnMut(&Cx) -> Result<T, E> + Send,
    ) -> Result<T, E> {
        let Device::Gpu(gpu) = &self.device else { return self.install(|| work(self)) };
        // Other threads must not get memory that the work uses before the work is queued.
        let _hold = self.arena.hold();
        let inside = |memory: Vec<Tensor>| {
            let slots = Slots { memory, words: Vec::new() };
            Cx { slots: Arc::new(Mutex::new(Some(slots))), ..self.clone() }
        };
        let cx = inside(std::mem::take(&mut graphs.memory));
        let rehearsed = gpu.dry_run(|| work(&cx));
        let Slots { words, memory } = cx.end();
        graphs.memory = memory;
        let (value, fingerprint) = rehearsed?;
        for (words, memory) in words.iter().zip(&graphs.memory) {
            self.write_words(words, memory)?;
        }
        if let Some(graph) = graphs.recorded.get(&fingerprint) {
            graph.launch().map_err(Error::from)?;
            return Ok(value);
        }
        drop(value);
        if graphs.recorded.len() >= RECORDINGS {
            graphs.recorded.clear();
        }
        let cx = inside(std::mem::take(&mut graphs.memory));
        let recorded = gpu.record(|| work(&cx).map_err(Attempt::Work));
        graphs.memory = cx.end().memory;
        let (value, graph) = recorded.map_err(|e| match e {
            Attempt::Work(e) => e,
            Attempt::Gpu(e) => E::from(e.into()),
        })?;
        graph.launch().map_err(Error::from)?;
        graphs.recorded.insert(graph.fingerprint(), graph);
        Ok(value)
    }

    /// Ends a dry run or a recording and returns its tables.
    fn end(&self) -> Slots {
        lock(&self.slots).take().unwrap_or_default()
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

impl Tables {
    fn find(&mut self, words: &[u32]) -> Option<Tensor> {
        self.clock += 1;
        let (tensor, used) = self.by_content.get_mut(words)?;
        *used = self.clock;
        Some(tensor.clone())
    }

    fn keep(&mut self, words: &[u32], tensor: Tensor) {
        if self.by_content.len() >= TABLES {
            // Evicts the least recently used half.
            let mut ages: Vec<u64> = self.by_content.values().map(|(_, used)| *used).collect();
            let middle = ages.len() / 2;
            let (_, &mut limit, _) = ages.select_nth_unstable(middle);
            self.by_content.retain(|_, (_, used)| *used >= limit);
        }
        self.by_content.insert(words.to_vec(), (tensor, self.clock));
    }
}

/// A lock is usable after a panic, because every change under it is a single call.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(|e| e.into_inner())
}

/// Why a recording failed.
enum Attempt<E> {
    Work(E),
    Gpu(GpuError),
}

impl<E> From<GpuError> for Attempt<E> {
    fn from(error: GpuError) -> Attempt<E> {
        Attempt::Gpu(error)
    }
}
