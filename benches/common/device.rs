//! The device under the clock: its tensors, its caches, its time.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use pheye_kernels::{Graph, Memory};
use pheye_ops::Cx;
use pheye_tensor::{Device, Grads, Param, ParamTable};

use super::{Result, Work};

/// Larger than the last cache: 60 MB on an H200, 32 MB on many server CPUs.
const CACHES: usize = 256 << 20;

/// Bytes of each side of the copy that measures bandwidth.
const COPY: usize = 512 << 20;

/// `cpu`, `cuda` or `cuda:N`; `None` is a GPU if there is one, else the CPU. The emulator's time means nothing.
pub fn open(name: Option<&str>) -> Result<Device> {
    match name {
        None => Ok(Device::best()),
        Some(name) if name.starts_with("emulator") => Err("the emulator is not for measuring".into()),
        Some(name) => Ok(name.parse()?),
    }
}

/// Parameters on the device, and gradients for them.
pub fn place(cx: &Cx, params: Vec<&mut Param>, table: ParamTable) -> Result<Grads> {
    if let Device::Gpu(_) = cx.device {
        // The flat arrays live on in the views of them that the parameters are.
        table.upload(params, &cx.device)?;
    }
    Ok(Grads::on(&cx.device, table)?)
}

/// A large copy, and the bytes that it reads and writes.
pub fn copy(cx: &Cx) -> Result<(usize, Work)> {
    match &cx.device {
        Device::Cpu => {
            let (from, mut to) = (vec![1u8; COPY], vec![2u8; COPY]);
            let copy = move |_: &Cx| {
                // All cores together, as operations use them.
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

/// Work that has run, so that its memory is allocated and its tables are on the device.
pub struct Runner {
    work: Work,
    graph: Option<Graph>,
}

/// Times work with cold caches.
pub struct Clock {
    cold: Cold,
}

/// What is written before each run.
enum Cold {
    Host(RefCell<Vec<u64>>),
    Gpu(Memory),
}

impl Clock {
    /// A clock for `device`.
    pub fn new(device: &Device) -> Result<Clock> {
        let cold = match device {
            Device::Cpu => Cold::Host(vec![1; CACHES / 8].into()),
            Device::Gpu(gpu) => Cold::Gpu(gpu.alloc(CACHES)?),
        };
        Ok(Clock { cold })
    }

    /// Runs `work` twice, then, on a GPU, records a graph of it.
    pub fn prepare(&self, cx: &Cx, mut work: Work) -> Result<Runner> {
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

    /// Time of one run.
    pub fn time(&self, cx: &Cx, runner: &mut Runner) -> Result<Duration> {
        match (&cx.device, &self.cold) {
            (Device::Gpu(gpu), Cold::Gpu(memory)) => {
                // Queued, so that the launch after it is there when the GPU gets to it.
                gpu.clear(memory.all())?;
                let graph = runner.graph.as_ref().ok_or("work without a graph")?;
                Ok(gpu.time(|| graph.launch())?)
            }
            (_, cold) => {
                if let Cold::Host(memory) = cold {
                    // By all threads, so that all are awake when the clock starts, as in the middle of a model.
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
