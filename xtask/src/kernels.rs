//! What nvcc makes of each kernel: registers, shared memory, spills, occupancy; and a check that nothing is wasted.
//!
//! The compiler and its flags are those of the build script, whose results it shares.

mod elf;
#[path = "../../build/jobs.rs"]
mod jobs;
#[path = "../../build/nvcc.rs"]
mod nvcc;
mod occupancy;
mod report;

use std::fs;

use anyhow::{Context, Result, bail, ensure};

use elf::Elf;
use nvcc::{Nvcc, Object};
use occupancy::{Block, Limits};
use report::Usage;

/// `[--check] [ARCHS]`: compiles all kernels, prints a row for each kernel and architecture. With `--check`, fails on a spill, a
/// stack frame or an advisory of the assembler (C75xx).
pub fn run(args: &[String]) -> Result<()> {
    let mut check = false;
    let mut list = String::new();
    for arg in args {
        match arg.as_str() {
            "--check" => check = true,
            flag if flag.starts_with('-') => bail!("no option `{flag}`; there is --check"),
            archs => list = format!("{list},{archs}"),
        }
    }
    let root = fs::canonicalize(super::root()).context("the root of the repository")?;
    let said = anyhow::Error::msg::<String>;
    let nvcc = Nvcc::find(&root)
        .map_err(|why| said(format!("{why}; scripts/install-nvcc puts one into target/cuda")))?;
    let archs = nvcc.archs(Some(list.as_str()).filter(|list| !list.is_empty())).map_err(said)?;
    let sources = jobs::sources(&root.join("kernels")).map_err(said)?;
    let (include, target) = (root.join("kernels/include"), root.join("target/kernels"));
    let objects = nvcc.compile(&sources, &archs, &include, &target).map_err(said)?;
    for objects in objects.chunk_by(|a, b| a.name == b.name) {
        nvcc.join(objects, &target.join(format!("{}.fatbin", objects[0].name))).map_err(said)?;
    }

    let mut rows = Vec::new();
    let mut faults = Vec::new();
    for object in objects.iter().filter(|object| !object.arch.starts_with("compute_")) {
        look(object, &mut rows, &mut faults).with_context(|| format!("{}", object.file.display()))?;
    }
    print(&rows);
    println!("\n{} kernels in {} files; fatbins are in {}", kernels(&rows), sources.len(), target.display());
    ensure!(!check || !rows.is_empty(), "there is no kernel to check");
    for fault in &faults {
        eprintln!("{fault}");
    }
    ensure!(!check || faults.is_empty(), "{} faults in what nvcc made of the kernels", faults.len());
    Ok(())
}

/// One kernel on one architecture.
struct Row {
    kernel: String,
    arch: String,
    usage: Usage,
    /// Threads and dynamic shared bytes, from the record beside the kernel.
    spec: Option<(u32, u32)>,
    code: Option<u64>,
}

fn look(object: &Object, rows: &mut Vec<Row>, faults: &mut Vec<String>) -> Result<()> {
    let bytes = fs::read(&object.file)?;
    let elf = Elf::parse(&bytes)?;
    let report = report::parse(&object.report)?;
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

fn print(rows: &[Row]) {
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
    for row in &table {
        let cells: Vec<_> =
            row[1..].iter().zip(&widths[1..]).map(|(cell, &width)| format!("{cell:>width$}")).collect();
        println!("{:<width$}  {}", row[0], cells.join("  "), width = widths[0]);
    }
}
