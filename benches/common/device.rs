//! The device that is measured: its tensors, its caches, and its clock.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use pheye_kernels::{Graph, Memory};
use pheye_ops::Cx;
use pheye_tensor::{Device, Grads, Param, ParamTable};

use super::{Result, Work};

/// Bytes written to evict the caches. The last-level cache has 60 MB on an H200 and 32 MB on many server
/// CPUs.
const CACHES: usize = 256 << 20;

/// The size in bytes of the copy that measures memory bandwidth.
const COPY: usize = 512 << 20;

/// Opens `cpu`, `cuda` or `cuda:N`; by default a GPU if there is one, otherwise the CPU. The emulator is
/// refused, because its speed is meaningless.
pub(super) fn open(name: Option<&str>) -> Result<Device> {
    match name {
        None => Ok(Device::best()),
        Some(name) if name.starts_with("emulator") => Err("the emulator is not for measuring".into()),
        Some(name) => Ok(name.parse()?),
    }
}

/// Moves the parameters to the device, and allocates their gradients there.
pub(super) fn place(cx: &Cx, params: Vec<&mut Param>, table: ParamTable) -> Result<Grads> {
    if let Device::Gpu(_) = cx.device {
        // The parameters are views of the flat arrays and keep them alive.
        table.upload(params, &cx.device)?;
    }
    Ok(Grads::on(&cx.device, table)?)
}

/// A large copy, and the number of bytes that it reads and writes.
pub(super) fn copy(cx: &Cx) -> Result<(usize, Work)> {
    match &cx.device {
        Device::Cpu => {
            let (from, mut to) = (vec![1u8; COPY], vec![2u8; COPY]);
            let copy = move |_: &Cx| {
                // All cores copy, as all cores work in operations.
                let piece = COPY.div_ceil(64);
                pheye_cpu::par::rows(&mut to, 1, piece, COPY, |first, to| {
                    to.copy_from_slice(&from[first..first + to.len()]);
                });
                Ok(())
            };
            Ok((2 * COPY, Box::new(copy)))
        }
        Device::Gpu(gpu) => {
            let (gpu, from, to) = (gpu.clone(), gpu.alloc(COPY)?, gpu.alloc(COPY)?);
            Ok((2 * COPY, Box::new(move |_: &Cx| Ok(gpu.copy(from.all(), to.all())?))))
        }
    }
}

/// Work that has run before, so that its memory is allocated and its tables are on the device.
pub(super) struct Runner {
    work: Work,
    graph: Option<Graph>,
}

/// Measures the time of work with cold caches.
pub(super) struct Clock {
    cold: Cold,
}

/// The memory that is written before each run to evict the caches.
enum Cold {
    Host(RefCell<Vec<u64>>),
    Gpu(Memory),
}

impl Clock {
    /// A clock for `device`.
    pub(super) fn new(device: &Device) -> Result<Clock> {
        let cold = match device {
            Device::Cpu => Cold::Host(vec![1; CACHES / 8].into()),
            Device::Gpu(gpu) => Cold::Gpu(gpu.alloc(CACHES)?),
        };
        Ok(Clock { cold })
    }

    /// Runs `work` twice, and on a GPU also records it in a CUDA graph.
    pub(super) fn prepare(&self, cx: &Cx, mut work: Work) -> Result<Runner> {
        work(cx)?;
        work(cx)?;
        let graph = match &cx.device {
            Device::Gpu(gpu) => {
                gpu.synchronize()?;
                Some(gpu.record(|| work(cx))?.1)
            }
            Device::Cpu => None,
        };
        Ok(Runner { work, graph })
    }

    /// The time of one run.
    pub(super) fn time(&self, cx: &Cx, runner: &mut Runner) -> Result<Duration> {
        match (&cx.device, &self.cold) {
            (Device::Gpu(gpu), Cold::Gpu(memory)) => {
                // The clear is queued, so that the GPU finds the graph launch in its queue when the clear
                // ends.
                gpu.clear(memory.all())?;
                let graph = runner.graph.as_ref().ok_or("work without a graph")?;
                Ok(gpu.time(|| graph.launch())?)
            }
            (_, cold) => {
                if let Cold::Host(memory) = cold {
                    // All threads write, so that they are awake when the measurement starts, as they are
                    // inside a model.
                    let (mut memory, piece) = (memory.borrow_mut(), CACHES / 8 / 64);
                    pheye_cpu::par::rows(&mut memory, 1, piece, CACHES / 8, |_, part| {
                        part.iter_mut().for_each(|x| *x = x.wrapping_add(1));
                    });
                    black_box(&memory);
                }
                let start = Instant::now();
                (runner.work)(cx)?;
                Ok(start.elapsed())
            }
        }
    }
}
