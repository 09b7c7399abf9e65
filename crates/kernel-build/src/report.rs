//! A table of the resources of each kernel (registers, shared memory, spills, occupancy), and a check for
//! spills.
//!
//! It uses the compiler and flags of the build scripts, and their cache of objects.

use std::fs;
use std::path::{Path, PathBuf};

use crate::elf::Elf;
use crate::jobs;
use crate::nvcc::{Nvcc, Object};
use crate::occupancy::{Block, Limits};
use crate::ptxas::{self, Usage};

/// The resources of compiled kernels.
#[derive(Debug, Clone)]
pub struct Report {
    /// The table, with a row for each kernel and architecture.
    pub table: String,
    /// Spills, stack frames and advisories of the assembler (C75xx), one per line.
    pub faults: Vec<String>,
    /// The number of distinct kernels in the table.
    pub kernels: usize,
    /// The folder that holds one fatbin for each `.cu`.
    pub fatbins: PathBuf,
}

/// Compiles all `.cu` files in `dir` with the include folders `includes` for the architectures `archs`, such
/// as `80,90a` (by default those of a build), and reports their resources. Objects and fatbins go to the
/// folder `to`.
///
/// # Errors
/// Returns a message if nvcc is not found, does not support an architecture, or fails, or if a file cannot be
/// read or written.
pub fn report(dir: &Path, includes: &[PathBuf], archs: Option<&str>, to: &Path) -> Result<Report, String> {
    let nvcc =
        Nvcc::find(dir).map_err(|why| format!("{why}; scripts/install-nvcc puts one into target/cuda"))?;
    let archs = nvcc.archs(archs)?;
    let sources = jobs::sources(dir)?;
    let objects = nvcc.compile(&sources, &archs, includes, to)?;
    for objects in objects.chunk_by(|a, b| a.name == b.name) {
        nvcc.join(objects, &to.join(format!("{}.fatbin", objects[0].name)))?;
    }
    let mut rows = Vec::new();
    let mut faults = Vec::new();
    for object in objects.iter().filter(|object| !object.arch.starts_with("compute_")) {
        look(object, &mut rows, &mut faults).map_err(|why| format!("{}: {why}", object.file.display()))?;
    }
    Ok(Report { table: table(&rows), faults, kernels: kernels(&rows), fatbins: to.to_owned() })
}

/// One kernel on one architecture.
struct Row {
    kernel: String,
    arch: String,
    usage: Usage,
    /// Threads per block and bytes of dynamic shared memory, from the kernel's record.
    spec: Option<(u32, u32)>,
    code: Option<u64>,
}

fn look(object: &Object, rows: &mut Vec<Row>, faults: &mut Vec<String>) -> Result<(), String> {
    let bytes = fs::read(&object.file).map_err(|e| e.to_string())?;
    let elf = Elf::parse(&bytes)?;
    let report = ptxas::parse(&object.report)?;
    let place = |kernel: &str| format!("{}.cu: {kernel} on {}", object.name, object.arch);
    for message in report.advice {
        faults.push(format!("{}.cu on {}: {message}", object.name, object.arch));
    }
    for (kernel, usage) in report.kernels {
        if usage.spilled > 0 {
            faults.push(format!("{}: {} bytes of spills", place(&kernel), usage.spilled));
        }
        if usage.stack > 0 {
            faults.push(format!("{}: a stack frame of {} bytes", place(&kernel), usage.stack));
        }
        let spec = elf.object(&format!("{kernel}_spec")).and_then(|record| {
            let word = |at: usize| Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?));
            Some((word(0)?, word(4)?))
        });
        let code = elf.section_size(&format!(".text.{kernel}"));
        rows.push(Row { kernel, arch: object.arch.clone(), usage, spec, code });
    }
    Ok(())
}

fn kernels(rows: &[Row]) -> usize {
    let mut names: Vec<_> = rows.iter().map(|row| &row.kernel).collect();
    names.sort();
    names.dedup();
    names.len()
}

fn table(rows: &[Row]) -> String {
    let unknown = || "-".to_owned();
    let mut table = vec![
        [
            "kernel", "arch", "threads", "regs", "dynamic", "static", "spills", "stack", "blocks", "occ %",
            "code",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    for row in sorted {
        let fit = row.spec.zip(Limits::of(&row.arch)).map(|((threads, dynamic), limits)| {
            let Usage { registers, shared, .. } = row.usage;
            limits.fit(Block { threads, registers, shared: shared + dynamic })
        });
        table.push(vec![
            row.kernel.clone(),
            row.arch.clone(),
            row.spec.map_or_else(unknown, |(threads, _)| threads.to_string()),
            row.usage.registers.to_string(),
            row.spec.map_or_else(unknown, |(_, dynamic)| dynamic.to_string()),
            row.usage.shared.to_string(),
            row.usage.spilled.to_string(),
            row.usage.stack.to_string(),
            fit.map_or_else(unknown, |fit| fit.blocks.to_string()),
            fit.map_or_else(unknown, |fit| fit.percent.to_string()),
            row.code.map_or_else(unknown, |bytes| bytes.to_string()),
        ]);
    }
    let widths: Vec<_> = (0..table[0].len())
        .map(|column| table.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> =
            row[1..].iter().zip(&widths[1..]).map(|(cell, &width)| format!("{cell:>width$}")).collect();
        format!("{:<width$}  {}\n", row[0], cells.join("  "), width = widths[0])
    };
    table.iter().map(line).collect()
}
