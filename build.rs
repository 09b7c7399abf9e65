//! Compiles the kernels: with nvcc under the feature `cuda`, with the host's C++ compiler under `emulator`.
//!
//! Without either feature nothing is compiled. `kernels/README.md` lists the environment variables. Crates that depend on this
//! one find the headers of the kernels by `DEP_PHEYE_KERNELS_INCLUDE` in their build scripts.

#[path = "build/emulator.rs"]
mod emulator;
#[path = "build/jobs.rs"]
mod jobs;
#[path = "build/nvcc.rs"]
mod nvcc;

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use nvcc::{Nvcc, Object};

/// Where things are.
struct Places {
    root: PathBuf,
    kernels: PathBuf,
    include: PathBuf,
    out: PathBuf,
    /// Objects by content. In this workspace it is shared by all profiles, features and `cargo xtask kernels`.
    cache: PathBuf,
}

fn main() {
    if let Err(why) = build() {
        eprintln!("{why}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let var = |name: &str| env::var_os(name).map(PathBuf::from).ok_or(format!("cargo did not set {name}"));
    let (root, out) = (var("CARGO_MANIFEST_DIR")?, var("OUT_DIR")?);
    let target = root.join("target");
    let cache = if out.starts_with(&target) { target.join("kernels") } else { out.join("kernels") };
    let kernels = root.join("kernels");
    let places = Places { include: kernels.join("include"), root, kernels, out, cache };

    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::metadata=include={}", places.include.display());
    if nvcc::set("CARGO_FEATURE_CUDA").is_some() {
        cuda(&places)?;
    }
    if nvcc::set("CARGO_FEATURE_EMULATOR").is_some() {
        emulator::build(&places)?;
    }
    Ok(())
}

/// One fatbin for each `.cu`, and `images.rs` with a table of them; an empty table and the reason when there is no nvcc.
fn cuda(places: &Places) -> Result<(), String> {
    for name in
        ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH", "PHEYE_CUDA", "PHEYE_CUDA_ARCHS", "PHEYE_CUDA_FLAGS"]
    {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let mode = env::var("PHEYE_CUDA").unwrap_or_default();
    let found = match mode.as_str() {
        "off" => Err("the build ran with PHEYE_CUDA=off".to_owned()),
        "" | "auto" | "require" => Nvcc::find(&places.root),
        other => return Err(format!("PHEYE_CUDA is `{other}`, and may be require, auto or off")),
    };
    match found {
        Ok(nvcc) => write_images(places, &embed(places, &nvcc)?, ""),
        Err(why) if mode == "require" => {
            Err(format!("PHEYE_CUDA=require, but {why}; scripts/install-nvcc puts one into target/cuda"))
        }
        // No warning: a build for the CPU is a fine build, and opening `cuda` says what was missing.
        Err(why) => write_images(places, &[], &why),
    }
}

/// Source, fatbin and kernels.
type Image = (String, PathBuf, BTreeSet<String>);

fn embed(places: &Places, nvcc: &Nvcc) -> Result<Vec<Image>, String> {
    println!("cargo::rerun-if-changed={}", nvcc.path.display());
    let list = env::var("PHEYE_CUDA_ARCHS").ok().filter(|list| !list.is_empty());
    let archs = nvcc.archs(list.as_deref()).map_err(|why| match list {
        Some(list) => format!("PHEYE_CUDA_ARCHS={list}: {why}"),
        None => why,
    })?;
    let sources = jobs::sources(&places.kernels)?;
    let objects = nvcc.compile(&sources, &archs, &places.include, &places.cache)?;
    let mut images = Vec::new();
    for objects in objects.chunk_by(|a, b| a.name == b.name) {
        let name = &objects[0].name;
        let fatbin = places.out.join("cuda").join(format!("{name}.fatbin"));
        nvcc.join(objects, &fatbin)?;
        // A kernel for one architecture alone is missing from the others.
        let mut kernels = BTreeSet::new();
        for object in objects {
            kernels.extend(kernels_of(object)?);
        }
        images.push((name.clone(), fatbin, kernels));
    }
    Ok(images)
}

/// The names of the kernels in an object: from the report on machine code, from the text of PTX.
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

fn write_images(places: &Places, images: &[Image], missing: &str) -> Result<(), String> {
    let mut text = format!("static MISSING: &str = {missing:?};\n\nstatic IMAGES: &[Image] = &[\n");
    for (name, fatbin, kernels) in images {
        let kernels: Vec<_> = kernels.iter().collect();
        // The driver reads 8-byte fields, and `include_bytes!` alone promises no alignment.
        let bytes = format!("&Aligned(*include_bytes!({fatbin:?}))");
        let row = format!("Image {{ source: {name:?}, bytes: {bytes}, kernels: &{kernels:?} }},");
        writeln!(text, "    {row}").map_err(|error| error.to_string())?;
    }
    text.push_str("];\n");
    write(places.out.join("images.rs"), &text)
}

fn write(file: PathBuf, text: &str) -> Result<(), String> {
    fs::write(&file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))
}
