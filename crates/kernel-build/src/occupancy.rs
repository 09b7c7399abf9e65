//! Occupancy: how many blocks of a kernel run on one multiprocessor at once.
//!
//! The limits are from the CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".

/// The resources of one multiprocessor. Each also has 65536 registers, allocated to warps in units of 256 and
/// divided evenly among four partitions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    warps: u32,
    blocks: u32,
    /// Bytes of shared memory; one block may use 1 KiB less.
    shared: u32,
}

/// The resources of one block of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub threads: u32,
    /// Registers per thread.
    pub registers: u32,
    /// Bytes of static and dynamic shared memory.
    pub shared: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fit {
    /// Blocks that run at once; 0 if one block exceeds the multiprocessor.
    pub blocks: u32,
    /// Occupancy: warps that run at once, in percent of the maximum.
    pub percent: u32,
}

const REGISTERS: u32 = 65536;
/// Bytes of shared memory that the system reserves for each block.
const RESERVED: u32 = 1024;

impl Limits {
    /// The limits of an architecture such as `90a`; `None` if it is not in the table.
    pub(crate) fn of(arch: &str) -> Option<Limits> {
        let (warps, blocks, kib) = match arch.trim_end_matches(|c: char| c.is_ascii_lowercase()) {
            "80" => (64, 32, 164),
            "86" => (48, 16, 100),
            "87" => (48, 16, 164),
            "89" => (48, 24, 100),
            "90" | "100" | "103" => (64, 32, 228),
            "120" | "121" => (48, 24, 100),
            _ => return None,
        };
        Some(Limits { warps, blocks, shared: kib * 1024 })
    }

    pub(crate) fn fit(&self, block: Block) -> Fit {
        let warps = block.threads.div_ceil(32).max(1);
        let by_registers = {
            let each = (block.registers * 32).next_multiple_of(256).max(256);
            REGISTERS / each / 4 * 4 / warps
        };
        let by_shared = self.shared / (block.shared + RESERVED).next_multiple_of(128);
        let blocks = self.blocks.min(self.warps / warps).min(by_registers).min(by_shared);
        Fit { blocks, percent: blocks * warps * 100 / self.warps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(arch: &str, threads: u32, registers: u32, shared: u32) -> (u32, u32) {
        let fit = Limits::of(arch).unwrap().fit(Block { threads, registers, shared });
        (fit.blocks, fit.percent)
    }

    #[test]
    fn each_limit_in_turn() {
        assert_eq!(fit("80", 256, 32, 0), (8, 100), "warps");
        assert_eq!(fit("80", 32, 16, 0), (32, 50), "blocks");
        assert_eq!(fit("86", 256, 32, 0), (6, 100), "48 warps");
        assert_eq!(fit("90a", 256, 128, 0), (2, 25), "registers: 512 threads at 128");
        assert_eq!(fit("90a", 128, 168, 0), (3, 18), "registers: 12 warps at 168");
        assert_eq!(fit("80", 128, 64, 81 * 1024), (2, 12), "shared memory: twice 82 KiB are 164");
        assert_eq!(fit("80", 128, 64, 82 * 1024), (1, 6), "shared memory, with the reserved KiB");
        assert_eq!(fit("120a", 128, 64, 100 * 1024), (0, 0), "does not fit");
        assert!(Limits::of("75").is_none());
    }
}
