//! Parses the output of `ptxas -v`.

/// The resources of one kernel.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    pub registers: u32,
    /// Bytes of static shared memory.
    pub shared: u32,
    /// Bytes of spill stores and spill loads, including those of functions that it calls.
    pub spilled: u32,
    /// The largest stack frame in bytes.
    pub stack: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    pub kernels: Vec<(String, Usage)>,
    /// Advisories about lost performance, such as C7510: wgmma was serialized.
    pub advice: Vec<String>,
}

pub(crate) fn parse(text: &str) -> Result<Report, String> {
    let mut report = Report::default();
    for line in text.lines() {
        if line.contains("(C75") {
            report.advice.push(line.to_owned());
        }
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let (name, _) = rest.split_once('\'').ok_or("a kernel's name without an end")?;
            report.kernels.push((name.to_owned(), Usage::default()));
        }
        // Lines before the first kernel are about the file. Functions that are not inlined follow the kernel
        // that calls them.
        let Some((_, usage)) = report.kernels.last_mut() else { continue };
        let number = |after: &str| -> Option<u32> {
            let words = line.split_once(after)?.0;
            words.rsplit(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty())?.parse().ok()
        };
        usage.stack = usage.stack.max(number(" bytes stack frame").unwrap_or(0));
        usage.spilled +=
            number(" bytes spill stores").unwrap_or(0) + number(" bytes spill loads").unwrap_or(0);
        usage.registers = usage.registers.max(number(" registers").unwrap_or(0));
        usage.shared = usage.shared.max(number(" bytes smem").unwrap_or(0));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_of_a_report() {
        let text = "ptxas info    : 48 bytes gmem, 16 bytes cmem[4]
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized in function 'one'
ptxas info    : Compiling entry function 'one' for 'sm_80'
ptxas info    : Function properties for one
    40 bytes stack frame, 36 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 40 bytes cumulative stack size, 1024 bytes smem, 376 bytes cmem[0]
ptxas info    : Function properties for helper
    64 bytes stack frame, 0 bytes spill stores, 8 bytes spill loads
ptxas info    : Compiling entry function 'two' for 'sm_80'
ptxas info    : Function properties for two
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
";
        let report = parse(text).unwrap();
        let one = Usage { registers: 255, shared: 1024, spilled: 48, stack: 64 };
        let two = Usage { registers: 8, ..Usage::default() };
        assert_eq!(report.kernels, [("one".to_owned(), one), ("two".to_owned(), two)]);
        assert_eq!(report.advice.len(), 1);
    }
}
