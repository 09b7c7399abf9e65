//! The memory that a run uses: of the process, and of its GPU.

use std::time::{Duration, Instant};

use pheye_tensor::Device;

/// Time between two readings, because asking the GPU takes longer than a short step should wait.
const EVERY: Duration = Duration::from_secs(1);

/// Memory in bytes, as far as the operating system and the device tell it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Peak resident set of the process (Linux).
    pub peak_resident: Option<u64>,
    /// Memory in use on the GPU, by all processes.
    pub gpu: Option<u64>,
}

/// The last reading and its time.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    at: Option<Instant>,
    last: MemoryUse,
}

impl Reading {
    /// The memory in use, at most a second ago.
    pub(crate) fn now(&mut self, device: &Device) -> MemoryUse {
        if self.at.is_none_or(|at| at.elapsed() >= EVERY) {
            self.at = Some(Instant::now());
            self.last = MemoryUse { peak_resident: peak_resident(), gpu: gpu(device) };
        }
        self.last
    }
}

fn peak_resident() -> Option<u64> {
    status("VmHWM:")
}

/// The resident set of the process (Linux).
pub(crate) fn resident() -> Option<u64> {
    status("VmRSS:")
}

fn status(entry: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix(entry))?;
    kib.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

fn gpu(device: &Device) -> Option<u64> {
    let Device::Gpu(gpu) = device else { return None };
    gpu.memory().ok().map(|(free, total)| total.saturating_sub(free))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_covers_what_was_touched() {
        let touched = std::hint::black_box(vec![1u8; 64 << 20]);
        let peak = Reading::default().now(&Device::Cpu).peak_resident.unwrap();
        assert!(peak > touched.len() as u64 && peak < 1 << 40, "{peak}");
    }
}
