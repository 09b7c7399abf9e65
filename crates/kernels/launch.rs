//! The launch of a kernel: its record, the regions that it accesses, and its parameters.

use crate::param::name_hash;
use crate::{Error, Gpu, In, Out, Params, Region, Result};

/// How a kernel accesses a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The kernel reads it.
    Read,
    /// The kernel writes every element and reads none.
    Write,
    /// The kernel reads and writes it, possibly in part.
    Update,
}

/// The record of a kernel, which `KERNEL` in `kernels/include/launch.cuh` defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Threads per block.
    pub threads: usize,
    /// Bytes of dynamic shared memory per block.
    pub shared: usize,
    /// Bytes of the parameter struct.
    pub params: usize,
    /// Up to three tile sizes, whose meaning the kernel defines.
    pub tile: [usize; 3],
    /// The FNV-1a hash of the parameter struct's name.
    pub params_name: u32,
}

impl From<[u32; 7]> for Spec {
    fn from(words: [u32; 7]) -> Spec {
        let [threads, shared, params, x, y, z, _] = words.map(|w| w as usize);
        Spec { threads, shared, params, tile: [x, y, z], params_name: words[6] }
    }
}

/// A launch in preparation: add its regions, then call [`Launch::run`].
#[derive(Debug)]
pub struct Launch<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) kernel: &'static str,
    pub(crate) spec: Spec,
    pub(crate) regions: Vec<(Access, Region)>,
}

impl Launch<'_> {
    /// The record of the kernel.
    pub fn spec(&self) -> Spec {
        self.spec
    }

    /// Adds a region that the kernel reads, and returns its address.
    pub fn read(&mut self, region: Region) -> In {
        In(self.name(Access::Read, region))
    }

    /// Adds a region of which the kernel writes every element and reads none, and returns its address.
    pub fn write(&mut self, region: Region) -> Out {
        Out(self.name(Access::Write, region))
    }

    /// Adds a region that the kernel reads and writes, and returns its address.
    pub fn update(&mut self, region: Region) -> Out {
        Out(self.name(Access::Update, region))
    }

    fn name(&mut self, access: Access, region: Region) -> u64 {
        let addr = region.addr();
        self.regions.push((access, region));
        addr
    }

    /// Runs the kernel on a grid of blocks; an empty grid runs nothing. On CUDA this only queues the launch,
    /// and a fault is reported by a later call, at the latest by the next synchronization.
    ///
    /// The addresses in `params` must come from [`Launch::read`], [`Launch::write`] and [`Launch::update`] of
    /// this launch, and the sizes in `params` must fit those regions. The emulator checks each access of the
    /// kernel against the regions. A GPU does not: a kernel with wrong parameters can access all memory that
    /// the device can reach, which is device memory and pinned host memory of this process, and all its
    /// memory on systems where GPU and CPU share page tables. So test each kernel on the emulator first.
    ///
    /// # Errors
    /// Returns [`Error::OtherParams`] if the kernel takes another struct, [`Error::Params`] if the size of
    /// the struct differs, [`Error::OtherGpu`] if a region is on another GPU, and [`Error::Launch`] if the
    /// grid is too large, the device refuses the launch, or the kernel fails on the emulator.
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

/// Checks the grid against the limits of all devices: 2³¹ − 1 blocks along the first axis, 65535 along the
/// others.
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
