//! The device that a tensor is on: the CPU or a GPU, parsed from a name such as `cpu` or `cuda:1`.

use std::fmt;
use std::str::FromStr;

use pheye_kernels::Gpu;

use crate::{Error, Result};

/// The device that a tensor is on and operations run on.
#[derive(Debug, Clone)]
pub enum Device {
    /// The CPU, with the threads of rayon's pool.
    Cpu,
    /// A GPU or the kernel emulator.
    Gpu(Gpu),
}

impl Device {
    /// A CUDA GPU if one can be opened, otherwise the CPU.
    pub fn best() -> Device {
        Gpu::open("cuda").map_or(Device::Cpu, Device::Gpu)
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Device> {
        match name {
            "cpu" => Ok(Device::Cpu),
            "auto" => Ok(Device::best()),
            _ => match name.split(':').next() {
                Some("cuda" | "emulator") => Ok(Device::Gpu(Gpu::open(name)?)),
                _ => Err(Error::UnknownDevice(name.to_owned())),
            },
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Gpu(gpu) => gpu.fmt(f),
        }
    }
}
