//! Finds nvcc and runs it.
//!
//! Each `.cu` is compiled separately for each architecture, so that compilations run in parallel and an edit
//! recompiles only the files that include it. The results of a `.cu` are joined to one fatbin. No GPU is
//! needed.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::jobs::{self, Source};

/// The default architectures: machine code for current GPUs, and PTX that the driver compiles for later ones.
pub(crate) const ARCHS: &str = "80,86,89,90a,100a,120a,compute_80";

/// No fast-math flag: a kernel that wants an approximate division uses the intrinsic, and the others stay
/// exact. No `-lineinfo`, which triples the size of the images; add it with `PHEYE_CUDA_FLAGS` for profiling.
const FLAGS: [&str; 4] = ["-O3", "-std=c++17", "-Xptxas", "-v"];

/// A compiler that was found and run, with its version and flags.
pub(crate) struct Nvcc {
    pub path: PathBuf,
    version: String,
    flags: Vec<String>,
}

/// One `.cu` compiled for one architecture.
pub(crate) struct Object {
    /// The name of the source, such as `fused/norm_linear`.
    pub name: String,
    /// The architecture: `90a` for machine code, `compute_80` for PTX.
    pub arch: String,
    pub file: PathBuf,
    /// The output of the compiler.
    pub report: String,
}

impl Nvcc {
    /// The first nvcc in `$NVCC`, `$CUDA_HOME/bin`, `$CUDA_PATH/bin`, `PATH`, and `target/cuda/bin` in `root`
    /// or a folder above it; otherwise a sentence that says what is missing. If `$NVCC` is set but cannot be
    /// run, nothing else is tried.
    pub(crate) fn find(root: &Path) -> Result<Nvcc, String> {
        let program = format!("nvcc{}", env::consts::EXE_SUFFIX);
        if let Some(path) = set("NVCC") {
            return Nvcc::at(PathBuf::from(&path)).map_err(|error| format!("NVCC is set, but {error}"));
        }
        let toolkits =
            ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(set).map(|dir| PathBuf::from(dir).join("bin"));
        let path = set("PATH").unwrap_or_default();
        let installed = root.ancestors().map(|dir| dir.join("target/cuda/bin"));
        let places = toolkits.chain(env::split_paths(&path)).chain(installed);
        let found = places.map(|dir| dir.join(&program)).find(|file| file.is_file());
        Nvcc::at(found.ok_or("there is no nvcc in $NVCC, $CUDA_HOME, $CUDA_PATH, PATH or target/cuda")?)
    }

    fn at(path: PathBuf) -> Result<Nvcc, String> {
        let version = jobs::run(Command::new(&path).arg("--version"))?;
        let more = env::var("PHEYE_CUDA_FLAGS").unwrap_or_default();
        let flags = FLAGS.into_iter().chain(more.split_whitespace()).map(str::to_owned).collect();
        Ok(Nvcc { path, version, flags })
    }

    /// The architectures of a list such as `80,90a,compute_80`; without a list, the members of [`ARCHS`] that
    /// this nvcc supports.
    pub(crate) fn archs(&self, list: Option<&str>) -> Result<Vec<String>, String> {
        let codes = jobs::run(Command::new(&self.path).arg("--list-gpu-code"))?;
        let known: BTreeSet<&str> =
            codes.split_whitespace().filter_map(|code| code.strip_prefix("sm_")).collect();
        let knows = |arch: &str| {
            let number =
                arch.trim_start_matches("compute_").trim_end_matches(|c: char| c.is_ascii_lowercase());
            known.contains(number)
        };
        let mut archs = Vec::new();
        for arch in list.unwrap_or(ARCHS).split([',', ' ']).filter(|arch| !arch.is_empty()) {
            let arch = arch.trim_start_matches("sm_");
            if knows(arch) {
                archs.push(arch.to_owned());
            } else if list.is_some() {
                return Err(format!(
                    "`{}` does not compile for the architecture `{arch}`",
                    self.path.display()
                ));
            }
        }
        if archs.is_empty() { Err("the list of architectures is empty".to_owned()) } else { Ok(archs) }
    }

    /// Compiles each of `sources` for each of `archs`, with the include folders `includes`. Objects in
    /// `cache` are named by a hash of all inputs, so unchanged sources are not recompiled. The result is
    /// ordered by source, then by `archs`.
    pub(crate) fn compile(
        &self,
        sources: &[Source],
        archs: &[String],
        includes: &[PathBuf],
        cache: &Path,
    ) -> Result<Vec<Object>, String> {
        let items: Vec<_> =
            sources.iter().flat_map(|source| archs.iter().map(move |arch| (source, arch))).collect();
        jobs::each(jobs::parallel(), &items, |(source, arch)| self.object(source, arch, includes, cache))
    }

    fn object(
        &self,
        source: &Source,
        arch: &str,
        includes: &[PathBuf],
        cache: &Path,
    ) -> Result<Object, String> {
        let closure = jobs::closure(&source.path, includes)?;
        let mut texts = vec![self.version.as_str(), arch];
        texts.extend(self.flags.iter().map(String::as_str));
        texts.extend(closure.iter().map(|(_, text)| text.as_str()));
        let (kind, target) = if arch.starts_with("compute_") {
            ("ptx", arch.to_owned())
        } else {
            ("cubin", format!("sm_{arch}"))
        };
        let file = cache.join(format!("{}.{target}.{}.{kind}", source.name, jobs::key(&texts)));
        let report = file.with_extension(format!("{kind}.txt"));
        jobs::once(&file, |part| {
            let mut command = Command::new(&self.path);
            command.arg(format!("-{kind}")).arg(format!("-arch={target}")).args(&self.flags);
            for include in includes {
                command.arg("-I").arg(include);
            }
            let said = jobs::run(command.arg(&source.path).arg("-o").arg(part))?;
            // The report is written before the object is renamed: an object without a report would pass every
            // check.
            let failed = |error| format!("cannot write {}: {error}", report.display());
            jobs::once(&report, |part| fs::write(part, said).map_err(failed))
        })?;
        let said = fs::read_to_string(&report)
            .map_err(|error| format!("cannot read {}: {error}", report.display()))?;
        Ok(Object { name: source.name.clone(), arch: arch.to_owned(), file, report: said })
    }

    /// Joins the objects of one source into the fatbin `file`.
    pub(crate) fn join(&self, objects: &[Object], file: &Path) -> Result<(), String> {
        let dir = file.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        let mut create = OsString::from("--create=");
        create.push(file);
        let fatbinary = self.path.with_file_name(format!("fatbinary{}", env::consts::EXE_SUFFIX));
        let mut command = Command::new(if fatbinary.is_file() { fatbinary } else { "fatbinary".into() });
        // This also compresses machine code, to a quarter of its size; by default only PTX is compressed.
        command.arg(create).args(["-64", "--compress-all"]);
        for object in objects {
            let (kind, sm) = match object.arch.strip_prefix("compute_") {
                Some(number) => ("ptx", number),
                None => ("elf", object.arch.as_str()),
            };
            let mut image = OsString::from(format!("--image3=kind={kind},sm={sm},file="));
            image.push(&object.file);
            command.arg(image);
        }
        jobs::run(&mut command).map(drop)
    }
}

/// The value of an environment variable, or `None` if it is unset or empty.
pub(crate) fn set(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
