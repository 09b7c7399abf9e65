//! One launch of a kernel: what its source says of it, the regions it touches, its parameters.

use crate::param::name_hash;
use crate::{Error, Gpu, In, Out, Params, Region, Result};

/// How a kernel uses a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is read.
    Read,
    /// Every element is written, and none is read.
    Write,
    /// It is read and written, perhaps in part.
    Update,
}

/// What a kernel's source says of it (`KERNEL` in `kernels/include/launch.cuh`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of dynamic shared memory of a block.
    pub shared: usize,
    /// Size of the parameter struct.
    pub params: usize,
    /// Sizes of what a block works on, in the kernel's own terms.
    pub tile: [usize; 3],
    /// A hash of the parameter struct's name.
    pub params_name: u32,
}

impl From<[u32; 7]> for Spec {
    fn from(words: [u32; 7]) -> Spec {
        let [threads, shared, params, x, y, z, _] = words.map(|w| w as usize);
        Spec { threads, shared, params, tile: [x, y, z], params_name: words[6] }
    }
}

/// A kernel about to run: name its regions, then [`Launch::run`] it.
#[derive(Debug)]
pub struct Launch<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) kernel: &'static str,
    pub(crate) spec: Spec,
    pub(crate) regions: Vec<(Access, Region)>,
}

impl Launch<'_> {
    /// What the kernel's source says of it.
    pub fn spec(&self) -> Spec {
        self.spec
    }

    /// The address of a region that the kernel reads.
    pub fn read(&mut self, region: Region) -> In {
        In(self.name(Access::Read, region))
    }

    /// The address of a region of which the kernel writes every element and reads none.
    pub fn write(&mut self, region: Region) -> Out {
        Out(self.name(Access::Write, region))
    }

    /// The address of a region that the kernel reads and writes.
    pub fn update(&mut self, region: Region) -> Out {
        Out(self.name(Access::Update, region))
    }

    fn name(&mut self, access: Access, region: Region) -> u64 {
        let addr = region.addr();
        self.regions.push((access, region));
        addr
    }

    /// Runs the kernel on a grid of blocks. On CUDA this only queues it; a fault shows at the next synchronization.
    ///
    /// Addresses in `params` are to be those that this launch's [`Launch::read`] and its siblings gave, and sizes to fit them. The
    /// emulator holds each access of the kernel to the regions named. A GPU does not: there a kernel with wrong parameters can
    /// touch whatever the device can reach, which is other memory of this process on the device, its pinned host memory, and on
    /// systems where GPU and CPU share page tables all of its memory. So each kernel is tried on the emulator first.
    ///
    /// # Errors
    /// [`Error::OtherParams`] when the kernel takes another struct, [`Error::Params`] when it has another size there,
    /// [`Error::OtherGpu`] when a region is of another GPU, [`Error::Launch`] when the device refuses.
    pub fn run<P: Params>(self, grid: [usize; 3], params: &P) -> Result<()> {
        let Spec { params: expected, params_name, .. } = self.spec;
        if params_name != const { name_hash(P::NAME) } {
            return Err(Error::OtherParams { kernel: self.kernel, given: P::NAME });
        }
        if expected != P::SIZE {
            return Err(Error::Params { kernel: self.kernel, expected, found: P::SIZE });
        }
        if grid.contains(&0) {
            return Ok(());
        }
        let mut bytes = vec![0; P::SIZE];
        params.store(&mut bytes);
        let run = || self.gpu.run(&self, blocks(grid)?, &bytes);
        run().map_err(|cause| match cause {
            Error::Driver { cause, .. } => self.failed(grid, cause),
            other => other,
        })
    }

    fn failed(&self, grid: [usize; 3], cause: String) -> Error {
        let regions: Vec<String> = self.regions.iter().map(|(_, r)| r.to_string()).collect();
        Error::Launch { kernel: self.kernel, grid, regions: regions.join(", "), cause }
    }
}

/// A grid within the limits of all devices: 2³¹ − 1 blocks along the first axis, 65535 along the others.
fn blocks(grid: [usize; 3]) -> Result<[u32; 3]> {
    let axis = |i: usize, limit: usize| {
        let blocks = u32::try_from(grid[i]).ok().filter(|_| grid[i] <= limit);
        blocks.ok_or_else(|| Error::Driver {
            call: "a launch",
            cause: format!("a grid may have {limit} blocks along axis {i}"),
        })
    };
    Ok([axis(0, i32::MAX as usize)?, axis(1, 65535)?, axis(2, 65535)?])
}

#[cfg(test)]
mod tests {
    use super::blocks;

    #[test]
    fn a_grid_has_limits() {
        assert_eq!(blocks([1 << 20, 65535, 1]), Ok([1 << 20, 65535, 1]));
        for grid in [[1 << 31, 1, 1], [1, 65536, 1], [1, 1, 1 << 16], [1, 1 << 32, 1]] {
            assert!(blocks(grid).is_err_and(|e| e.to_string().contains("a grid may have")), "{grid:?}");
        }
    }
}
