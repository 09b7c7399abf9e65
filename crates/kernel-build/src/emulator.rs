//! Compiles the same `.cu` files as C++ for the emulator, into one static library.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::jobs::{self, Source};
use crate::params::Struct;
use crate::{Package, nvcc, write};

/// With `-fsanitize=thread` the compiler inserts a call before each load and store, with `alignment` one for
/// each misaligned address. The emulator implements these functions; no sanitizer runtime is linked.
/// Contraction to fused multiply-adds is off, so that results do not depend on the host's compiler. Strict
/// aliasing is off, as in nvcc: kernels access shared memory both as floats and as 16-byte vectors.
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

/// Compiles the kernels, archives them in a static library and links it. Returns their names, sorted.
pub(crate) fn build(
    package: &Package,
    sources: &[Source],
    structs: &[Struct],
) -> Result<Vec<String>, String> {
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
    /// The include folders, in search order.
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

    /// The prefix of the symbols of this package's kernels. Without it, kernels of the same name in two
    /// packages would collide in the linker.
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

    /// The C++ file that includes a `.cu` in a namespace of its own. nvcc compiles each `.cu` to a separate
    /// module, but here all are linked together: if two files each define a `Tile`, the linker would merge
    /// template instantiations over them. Headers are included before the namespace, and `#pragma once` makes
    /// their second inclusion empty. Static assertions check the layout of the parameter structs, which the
    /// Rust structs rely on.
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

    /// The kernels in an object: each `name` for which there is also a symbol `name_spec`, both with the
    /// prefix.
    fn kernels_of(&self, object: &Path) -> Result<Vec<String>, String> {
        let listed = jobs::run(Command::new("nm").args(["-g", "--defined-only", "-P"]).arg(object))?;
        let symbols = listed.lines().filter_map(|line| line.split_whitespace().next());
        // On macOS the symbols of C functions begin with an underscore.
        let prefix = format!("{}{}", if cfg!(target_os = "macos") { "_" } else { "" }, self.prefix());
        let kernels = symbols.filter_map(|symbol| symbol.strip_prefix(&prefix)?.strip_suffix("_spec"));
        Ok(kernels.map(str::to_owned).collect())
    }
}

fn archive(objects: &[PathBuf], library: &Path) -> Result<(), String> {
    // `ar` adds to an existing archive, which would keep kernels that no longer exist.
    if library.exists() {
        std::fs::remove_file(library)
            .map_err(|error| format!("cannot replace {}: {error}", library.display()))?;
    }
    let ar = nvcc::set("AR").unwrap_or_else(|| "ar".into());
    jobs::run(Command::new(ar).arg("crs").arg(library).args(objects)).map(drop)
}
