//! Prints the resources that each kernel uses. `pheye-kernel-build` does the same for the kernels of any
//! crate.

use std::fs;

use anyhow::{Context, Result, bail, ensure};

/// `[--check] [ARCHS]`: compiles all kernels and prints a row for each kernel and architecture. With
/// `--check`, fails on a spill, a stack frame or an advisory of the assembler (C75xx).
pub(crate) fn run(args: &[String]) -> Result<()> {
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
    let archs = Some(list.as_str()).filter(|list| !list.is_empty());
    let kernels = root.join("kernels");
    let report =
        pheye_kernel_build::report(&kernels, &[kernels.join("include")], archs, &root.join("target/kernels"))
            .map_err(anyhow::Error::msg)?;
    print!("{}", report.table);
    println!("\n{} kernels; fatbins are in {}", report.kernels, report.fatbins.display());
    report.faults.iter().for_each(|fault| eprintln!("{fault}"));
    ensure!(!check || report.kernels > 0, "there is no kernel to check");
    ensure!(
        !check || report.faults.is_empty(),
        "{} spills, stack frames or advisories in the compiled kernels",
        report.faults.len()
    );
    Ok(())
}
