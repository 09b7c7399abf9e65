//! The same `.cu` files as C++ for the emulator: one static library, and `emulator_kernels.rs` with a table of its kernels.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::jobs::{self, Source};
use super::{Places, nvcc, write};

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

/// Compiles, archives and links the kernels, and those with planted faults that tests of the emulator use.
pub fn build(places: &Places) -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=CXX");
    println!("cargo::rerun-if-env-changed=PATH");
    let emulator = env::var_os("DEP_PHEYE_EMULATOR_INCLUDE").map(PathBuf::from);
    let emulator = emulator.ok_or("the crate pheye-emulator did not say where its headers are")?;
    println!("cargo::rerun-if-changed={}", emulator.display());
    let mut sources = jobs::sources(&places.kernels)?;
    let planted = places.root.join("tests/planted");
    // Cargo takes a missing path for a change; a published package has no tests.
    if planted.is_dir() {
        println!("cargo::rerun-if-changed=tests/planted");
        let named = |source: Source| Source { name: format!("planted/{}", source.name), ..source };
        sources.extend(jobs::sources(&planted)?.into_iter().map(named));
    }
    let includes: [&Path; 2] = [&places.include, &emulator];
    let compiler = Compiler::find(&includes)?;
    let objects = jobs::each(jobs::parallel(), &sources, |source| compiler.object(source, &places.cache))?;

    let mut kernels = BTreeMap::new();
    for (source, object) in sources.iter().zip(&objects) {
        for kernel in kernels_of(object)? {
            if let Some(other) = kernels.insert(kernel.clone(), &source.name) {
                return Err(format!("the kernel `{kernel}` is in both {other}.cu and {}.cu", source.name));
            }
        }
    }
    if !objects.is_empty() {
        archive(&objects, &places.out)?;
        println!("cargo::rustc-link-search=native={}", places.out.display());
        println!("cargo::rustc-link-lib=static=pheye_emulator_kernels");
    }
    write(places.out.join("emulator_kernels.rs"), &table(kernels.keys())?)
}

struct Compiler<'a> {
    program: String,
    version: String,
    includes: &'a [&'a Path],
}

impl<'a> Compiler<'a> {
    fn find(includes: &'a [&'a Path]) -> Result<Self, String> {
        let program =
            env::var("CXX").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "c++".to_owned());
        let version = jobs::run(Command::new(&program).arg("--version")).map_err(|error| {
            format!("the feature `emulator` needs a C++ compiler ($CXX, else c++): {error}")
        })?;
        Ok(Compiler { program, version, includes })
    }

    fn object(&self, source: &Source, cache: &Path) -> Result<PathBuf, String> {
        let closure = jobs::closure(&source.path, self.includes)?;
        let unit = unit(source, &closure);
        let mut texts = vec![self.program.as_str(), &self.version, &unit];
        texts.extend(FLAGS);
        texts.extend(closure.iter().map(|(_, text)| text.as_str()));
        let object = cache.join(format!("{}.emulator.{}.o", source.name, jobs::key(&texts)));
        jobs::once(&object, |part| {
            let file = object.with_extension("cpp");
            write(file.clone(), &unit)?;
            let mut command = Command::new(&self.program);
            command.args(FLAGS);
            for include in self.includes {
                command.arg("-I").arg(include);
            }
            jobs::run(command.arg("-c").arg(&file).arg("-o").arg(part)).map(drop)
        })?;
        Ok(object)
    }
}

/// The C++ file that holds a `.cu` in a namespace of its own. nvcc compiles each `.cu` to a module; here all are linked
/// together, and two files may each have a `Tile`: templates over them would be one function to the linker. Headers go
/// before the namespace, where `#pragma once` keeps their second inclusion empty.
fn unit(source: &Source, closure: &[(PathBuf, String)]) -> String {
    let mut text = String::new();
    let own = closure.first().map_or("", |(_, text)| text);
    for header in own.lines().filter_map(|line| jobs::included(line, '<', '>')) {
        text.push_str(&format!("#include <{header}>\n"));
    }
    for (path, _) in closure.iter().skip(1).filter(|(_, text)| text.contains("#pragma once")) {
        text.push_str(&format!("#include {path:?}\n"));
    }
    let name = source.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    text.push_str(&format!("namespace pheye_{name} {{\n#include {:?}\n}}\n", source.path));
    text
}

/// The kernels of an object: each `name` that has a `name_spec` beside it.
fn kernels_of(object: &Path) -> Result<Vec<String>, String> {
    let listed = jobs::run(Command::new("nm").args(["-g", "--defined-only", "-P"]).arg(object))?;
    let symbols = listed.lines().filter_map(|line| line.split_whitespace().next());
    // Symbols of C bear an underscore on macOS.
    let plain = |symbol: &'_ str| {
        symbol.strip_prefix(if cfg!(target_os = "macos") { "_" } else { "" }).map(str::to_owned)
    };
    Ok(symbols
        .filter_map(plain)
        .filter_map(|symbol| symbol.strip_suffix("_spec").map(str::to_owned))
        .collect())
}

fn archive(objects: &[PathBuf], out: &Path) -> Result<(), String> {
    let library = out.join("libpheye_emulator_kernels.a");
    // `ar` adds to an archive, and would keep kernels that are gone.
    if library.exists() {
        std::fs::remove_file(&library)
            .map_err(|error| format!("cannot replace {}: {error}", library.display()))?;
    }
    let ar = nvcc::set("AR").unwrap_or_else(|| "ar".into());
    jobs::run(Command::new(ar).arg("crs").arg(&library).args(objects)).map(drop)
}

/// `KERNELS`: name, function, and the record {threads, shared bytes, bytes of parameters, tile[3]}.
fn table<'a>(kernels: impl Iterator<Item = &'a String> + Clone) -> Result<String, String> {
    let mut text = String::from("unsafe extern \"C\" {\n");
    let mut rows = String::new();
    for name in kernels {
        let item = format!("    fn {name}(params: *const u8);\n    static {name}_spec: [u32; 6];");
        writeln!(text, "{item}").map_err(|error| error.to_string())?;
        let safety = "// SAFETY: a record that lives as long as the program, and that nothing writes.";
        let record = format!("unsafe {{ &{name}_spec }}");
        writeln!(rows, "    {safety}\n    ({name:?}, {name}, {record}),")
            .map_err(|error| error.to_string())?;
    }
    text.push_str("}\n\n/// All kernels in this build, by name: function and `{threads, shared bytes, bytes of parameters, tile[3]}`.\n");
    text.push_str("pub static KERNELS: &[(&str, unsafe extern \"C\" fn(*const u8), &[u32; 6])] = &[\n");
    Ok(text + &rows + "];\n")
}
