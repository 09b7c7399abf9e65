//! Compiles one fatbin for each `.cu`, or gives the reason why there is none.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;

use crate::Package;
use crate::jobs::Source;
use crate::nvcc::{Nvcc, Object};

/// The compiled fatbins of a package.
pub(crate) struct Images {
    pub fatbins: Vec<Fatbin>,
    /// The architectures of each fatbin, such as `90a`, or `compute_120` for PTX.
    pub archs: Vec<String>,
    /// Why there are no fatbins, as the end of a sentence; empty if there are some.
    pub missing: String,
}

/// The compiled fatbin of one `.cu`.
pub(crate) struct Fatbin {
    /// The path of the source in the kernel folder, without its extension.
    pub source: String,
    pub file: PathBuf,
    pub kernels: BTreeSet<String>,
}

impl Images {
    pub(crate) fn none(missing: &str) -> Images {
        Images { fatbins: Vec::new(), archs: Vec::new(), missing: missing.to_owned() }
    }
}

/// Compiles `sources` depending on `PHEYE_CUDA`: always (`require`), never (`off`), or if nvcc is found
/// (`auto`, the default).
pub(crate) fn build(package: &Package, sources: &[Source]) -> Result<Images, String> {
    for name in
        ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH", "PHEYE_CUDA", "PHEYE_CUDA_ARCHS", "PHEYE_CUDA_FLAGS"]
    {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let mode = env::var("PHEYE_CUDA").unwrap_or_default();
    let found = match mode.as_str() {
        "off" => Err("the build ran with PHEYE_CUDA=off".to_owned()),
        "" | "auto" | "require" => Nvcc::find(&package.root),
        other => return Err(format!("PHEYE_CUDA is `{other}`, and may be require, auto or off")),
    };
    match found {
        Ok(nvcc) => images(package, sources, &nvcc),
        Err(why) if mode == "require" => {
            Err(format!("PHEYE_CUDA=require, but {why}; scripts/install-nvcc puts one into target/cuda"))
        }
        // No warning: a build without CUDA is valid, and opening device `cuda` reports the reason.
        Err(why) => Ok(Images::none(&why)),
    }
}

fn images(package: &Package, sources: &[Source], nvcc: &Nvcc) -> Result<Images, String> {
    println!("cargo::rerun-if-changed={}", nvcc.path.display());
    let list = env::var("PHEYE_CUDA_ARCHS").ok().filter(|list| !list.is_empty());
    let archs = nvcc.archs(list.as_deref()).map_err(|why| match list {
        Some(list) => format!("PHEYE_CUDA_ARCHS={list}: {why}"),
        None => why,
    })?;
    let objects = nvcc.compile(sources, &archs, &package.includes, &package.cache)?;
    let mut fatbins = Vec::new();
    for objects in objects.chunk_by(|a, b| a.name == b.name) {
        let source = objects[0].name.clone();
        let file = package.out.join("cuda").join(format!("{source}.fatbin"));
        nvcc.join(objects, &file)?;
        // A kernel for one architecture only is missing from the other objects.
        let mut kernels = BTreeSet::new();
        for object in objects {
            kernels.extend(kernels_of(object)?);
        }
        fatbins.push(Fatbin { source, file, kernels });
    }
    Ok(Images { fatbins, archs, missing: String::new() })
}

/// The names of the kernels in an object: from ptxas's report for a cubin, from the file itself for PTX.
fn kernels_of(object: &Object) -> Result<BTreeSet<String>, String> {
    let name = |line: &str, before: &str, after: char| {
        let (_, rest) = line.split_once(before)?;
        Some(rest.split_once(after)?.0.to_owned())
    };
    if !object.arch.starts_with("compute_") {
        let lines = object.report.lines();
        return Ok(lines.filter_map(|line| name(line, "Compiling entry function '", '\'')).collect());
    }
    let unreadable = |error| format!("cannot read {}: {error}", object.file.display());
    let ptx = fs::read_to_string(&object.file).map_err(unreadable)?;
    Ok(ptx.lines().filter_map(|line| name(line, ".entry ", '(')).collect())
}
