//! `pheye-kernel-build`: prints the resources that the kernels of a crate use, as nvcc reports them.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pheye_kernel_build::report;

const HELP: &str = "\
Compiles the CUDA kernels of a crate and prints what each uses: registers, shared memory, spills, occupancy

Usage: pheye-kernel-build [--check] [--dir DIR] [--include DIR]… [ARCHS]

  ARCHS          architectures, such as 80,90a; without, those that a build compiles for
  --check        fail on a spill, a stack frame or an advisory of the assembler (C75xx)
  --dir DIR      folder of the .cu files [default: kernels]
  --include DIR  folder of headers; without, those of the crate's last build

Fatbins are left in target/kernels; PHEYE_KERNELS=FILE makes a program use one instead of its own.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode, String> {
    let (mut check, mut dir, mut includes, mut archs) =
        (false, PathBuf::from("kernels"), Vec::new(), String::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().map(PathBuf::from).ok_or(format!("{arg} needs a folder"));
        match arg.as_str() {
            "--check" => check = true,
            "--dir" => dir = value()?,
            "--include" => includes.push(value()?),
            flag if flag.starts_with('-') => return Err(format!("there is no option `{flag}`; see --help")),
            list => archs = format!("{archs},{list}"),
        }
    }
    let dir = dir.canonicalize().map_err(|e| format!("{}: {e}", dir.display()))?;
    let target = dir.ancestors().map(|dir| dir.join("target/kernels")).find(|dir| dir.is_dir());
    let target = target.ok_or("there is no folder target/kernels; build the crate first")?;
    if includes.is_empty() {
        includes = built_with(&dir, &target)?;
    }
    let report = report(&dir, &includes, Some(archs.as_str()).filter(|list| !list.is_empty()), &target)?;
    print!("{}", report.table);
    println!("\n{} kernels; fatbins are in {}", report.kernels, report.fatbins.display());
    report.faults.iter().for_each(|fault| eprintln!("{fault}"));
    if check && report.kernels == 0 {
        return Err("there is no kernel to check".to_owned());
    }
    Ok(if check && !report.faults.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The include folders of the last build of the crate whose kernels are in `dir`.
fn built_with(dir: &Path, target: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |e| format!("{}: {e}", target.display());
    for entry in std::fs::read_dir(target).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_none_or(|ending| ending != "include") {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut lines = text.lines().map(PathBuf::from);
        if lines.next().is_some_and(|of| of == dir) {
            return Ok(lines.collect());
        }
    }
    Err(format!(
        "the headers of {} are not known; build the crate first, or name them by --include",
        dir.display()
    ))
}
