//! The same `.cu` files as C++ for the emulator, in one static library.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::jobs::{self, Source};
use crate::params::Struct;
use crate::{Package, nvcc, write};

/// `-fsanitize=thread` makes the compiler announce each load and store by a call, `alignment` each address that its type does not
/// allow; the emulator answers those calls, and no sanitizer is linked. Contraction to fused multiply-adds is off, so that results do not depend on the host's compiler.
/// Strict aliasing is off as nvcc's is: shared memory is seen as floats and as 16-byte vectors in turn.
const FLAGS: [&str; 12] = [
    "-std=c++17",
    "-O2",
    "-g1",
    "-fPIC",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-threadsafe-statics",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-fsanitize=thread,alignment",
    "-DPHEYE_EMULATOR",
    "-w",
];

/// Compiles, archives and links the kernels; returns their names, sorted.
pub fn build(package: &Package, sources: &[Source], structs: &[Struct]) -> Result<Vec<String>, String> {
    for name in ["CXX", "AR", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let headers =
        package.emulator.as_ref().ok_or("the crate pheye-emulator did not say where its headers are")?;
    println!("cargo::rerun-if-changed={}", headers.display());
    let compiler = Compiler::find(package, headers)?;
    let objects = jobs::each(jobs::parallel(), sources, |source| compiler.object(source, structs))?;

    let mut kernels = BTreeMap::new();
    for (source, object) in sources.iter().zip(&objects) {
        for kernel in compiler.kernels_of(object)? {
            if let Some(other) = kernels.insert(kernel.clone(), &source.name) {
                return Err(format!("the kernel `{kernel}` is in both {other}.cu and {}.cu", source.name));
            }
        }
    }
    let library = format!("{}_emulated", package.identifier());
    archive(&objects, &package.out.join(format!("lib{library}.a")))?;
    println!("cargo::rustc-link-search=native={}", package.out.display());
    println!("cargo::rustc-link-lib=static={library}");
    Ok(kernels.into_keys().collect())
}

struct Compiler<'a> {
    program: String,
    version: String,
    package: &'a Package,
    /// Where headers are looked for.
    includes: Vec<PathBuf>,
}

impl<'a> Compiler<'a> {
    fn find(package: &'a Package, headers: &Path) -> Result<Self, String> {
        let program =
            env::var("CXX").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "c++".to_owned());
        let version = jobs::run(Command::new(&program).arg("--version")).map_err(|error| {
            format!("the feature `emulator` needs a C++ compiler ($CXX, else c++): {error}")
        })?;
        let includes =
            package.includes.iter().map(PathBuf::as_path).chain([headers]).map(Path::to_owned).collect();
        Ok(Compiler { program, version, package, includes })
    }

    /// What the names of this package's kernels begin with: two packages may each have a kernel of one name, and the linker
    /// would take one for the other.
    fn prefix(&self) -> String {
        format!("{}__", self.package.identifier())
    }

    fn object(&self, source: &Source, structs: &[Struct]) -> Result<PathBuf, String> {
        let closure = jobs::closure(&source.path, &self.includes)?;
        let unit = self.unit(source, &closure, structs);
        let prefix = format!("-DPHEYE_PREFIX={}", self.prefix());
        let mut texts = vec![self.program.as_str(), &self.version, &unit, &prefix];
        texts.extend(FLAGS);
        texts.extend(closure.iter().map(|(_, text)| text.as_str()));
        let name = format!("{}.emulator.{}.o", source.name, jobs::key(&texts));
        let object = self.package.cache.join(name);
        jobs::once(&object, |part| {
            let file = object.with_extension("cpp");
            write(file.clone(), &unit)?;
            let mut command = Command::new(&self.program);
            command.args(FLAGS).arg(&prefix);
            for include in &self.includes {
                command.arg("-I").arg(include);
            }
            jobs::run(command.arg("-c").arg(&file).arg("-o").arg(part)).map(drop)
        })?;
        Ok(object)
    }

    /// The C++ file that holds a `.cu` in a namespace of its own. nvcc compiles each `.cu` to a module; here all are linked
    /// together, and two files may each have a `Tile`: templates over them would be one function to the linker. Headers go
    /// before the namespace, where `#pragma once` keeps their second inclusion empty. The compiler also checks the layout of
    /// the parameter structs, which the Rust side follows.
    fn unit(&self, source: &Source, closure: &[(PathBuf, String)], structs: &[Struct]) -> String {
        let mut text = String::from("#include <stddef.h>\n");
        let own = closure.first().map_or("", |(_, text)| text);
        for header in own.lines().filter_map(|line| jobs::included(line, '<', '>')) {
            text.push_str(&format!("#include <{header}>\n"));
        }
        for (path, _) in closure.iter().skip(1).filter(|(_, text)| text.contains("#pragma once")) {
            text.push_str(&format!("#include {path:?}\n"));
        }
        let name = source.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let asserts: String = structs
            .iter()
            .filter(|item| closure.iter().any(|(path, _)| *path == item.file))
            .map(Struct::asserts)
            .collect();
        let space = format!("{}{name}", self.prefix());
        text.push_str(&format!("namespace {space} {{\n#include {:?}\n{asserts}}}\n", source.path));
        text
    }

    /// The kernels of an object: each `name` that has a `name_spec` beside it, both behind the prefix.
    fn kernels_of(&self, object: &Path) -> Result<Vec<String>, String> {
        let listed = jobs::run(Command::new("nm").args(["-g", "--defined-only", "-P"]).arg(object))?;
        let symbols = listed.lines().filter_map(|line| line.split_whitespace().next());
        // Symbols of C bear an underscore on macOS.
        let prefix = format!("{}{}", if cfg!(target_os = "macos") { "_" } else { "" }, self.prefix());
        let kernels = symbols.filter_map(|symbol| symbol.strip_prefix(&prefix)?.strip_suffix("_spec"));
        Ok(kernels.map(str::to_owned).collect())
    }
}

fn archive(objects: &[PathBuf], library: &Path) -> Result<(), String> {
    // `ar` adds to an archive, and would keep kernels that are gone.
    if library.exists() {
        std::fs::remove_file(library)
            .map_err(|error| format!("cannot replace {}: {error}", library.display()))?;
    }
    let ar = nvcc::set("AR").unwrap_or_else(|| "ar".into());
    jobs::run(Command::new(ar).arg("crs").arg(library).args(objects)).map(drop)
}
