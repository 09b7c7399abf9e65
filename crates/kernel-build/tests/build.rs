//! Runs a build script with a stub nvcc that logs what it compiles. Checks what is recompiled after a change,
//! and the effect of `PHEYE_CUDA`, `PHEYE_CUDA_ARCHS` and `NVCC` as `kernels/README.md` describes them.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use pheye_kernel_build::Launchers;
use tempfile::TempDir;

/// A stub nvcc. The object contains the kernels and flags; a source with `#error` does not compile.
const NVCC: &str = r##"#!/bin/sh
folder="${0%/*}"
case "$1" in
--version) read -r version <"$folder/version"; echo "$version"; exit ;;
--list-gpu-code) printf 'sm_75\nsm_80\nsm_86\nsm_90\n'; exit ;;
esac
source= object= arch= flags=
while [ $# -gt 0 ]; do
    case "$1" in
    -o) object="$2"; shift ;;
    -I) shift ;;
    -arch=*) arch="${1#-arch=}" ;;
    *.cu) source="$1" ;;
    -X*) shift ;;
    *) flags="$flags $1" ;;
    esac
    shift
done
printf '%s %s\n' "${source##*/}" "$arch" >>"$folder/log"
while read -r line; do
    case "$line" in
    '#error'*) echo "${source##*/}(1): error: as the test wishes" >&2; exit 2 ;;
    'kernel '*)
        name="${line#kernel }"
        echo "ptxas info    : Compiling entry function '$name' for '$arch'"
        printf '.entry %s(\n' "$name" >>"$object" ;;
    esac
done <"$source"
printf '%s\n' "$flags" >>"$object"
"##;

/// A stub fatbinary, which lists the images that it joins.
const FATBINARY: &str = r#"#!/bin/sh
for argument; do
    case "$argument" in
    --create=*) file="${argument#--create=}" ;;
    --image3=*) images="$images ${argument%,file=*}" ;;
    esac
done
echo "$images" >"$file"
"#;

/// The `OUT_DIR` of the package's build script.
const OUT: &str = "target/debug/build/own-1/out";

/// With this variable set, the test program acts as a build script.
const ACT: &str = "PHEYE_TEST_BUILD_SCRIPT";

/// The build script: run alone in a child process.
#[test]
fn script() {
    if std::env::var_os(ACT).is_some() {
        let cuda = std::env::var_os("CARGO_FEATURE_CUDA").is_some();
        pheye_kernel_build::compile_for("kernels", Launchers { cuda, emulator: false });
    }
}

/// A package with two kernels and three headers, and a stub nvcc.
struct Package {
    root: TempDir,
}

/// The outcome of a build script.
struct Ran {
    failed: bool,
    said: String,
    /// The compilations, such as `file.cu sm_80`.
    compiled: BTreeSet<String>,
}

impl Package {
    fn new() -> Package {
        let package = Package { root: tempfile::tempdir().unwrap() };
        package.write("kernels/one.cu", "#include \"common.cuh\"\nkernel one_fwd\nkernel one_bwd\n");
        package.write(
            "kernels/fused/two.cu",
            "#include \"outer.cuh\"\n#include \"missing.cuh\"\nkernel two_fwd\n",
        );
        package.write("kernels/include/common.cuh", "#pragma once\n");
        package.write("kernels/include/outer.cuh", "#pragma once\n  #  include \"inner.cuh\"\n");
        package.write("kernels/include/inner.cuh", "#pragma once\n");
        package.write("bin/version", "release 13.0\n");
        for (name, text) in [("nvcc", NVCC), ("fatbinary", FATBINARY)] {
            package.write(&format!("bin/{name}"), text);
            let path = package.path(&format!("bin/{name}"));
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        package
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Runs the build script as cargo does with feature `cuda`, with only `vars` and a PATH without nvcc in
    /// the environment.
    fn run(&self, vars: &[(&str, &str)]) -> Ran {
        let log = self.path("bin/log");
        let _ = fs::remove_file(&log);
        let out = self.path(OUT);
        fs::create_dir_all(&out).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "script", "--nocapture"]);
        child
            .env_clear()
            .env(ACT, "1")
            .env("CARGO_PKG_NAME", "own")
            .env("PATH", self.path("none"))
            .env("CARGO_FEATURE_CUDA", "1");
        child.env("CARGO_MANIFEST_DIR", self.root.path()).env("OUT_DIR", out);
        let ran = child.current_dir(self.root.path()).envs(vars.iter().copied()).output().unwrap();
        let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        let lines = fs::read_to_string(log).unwrap_or_default();
        let compiled: BTreeSet<_> = lines.lines().map(str::to_owned).collect();
        assert_eq!(compiled.len(), lines.lines().count(), "compiled twice: {lines}");
        Ran { failed: !ran.status.success(), said: said.concat(), compiled }
    }

    /// Runs it with this package's nvcc, for sm_80 unless `vars` says otherwise.
    fn build(&self, vars: &[(&str, &str)]) -> Ran {
        let nvcc = self.path("bin/nvcc");
        let mut all = vec![("NVCC", nvcc.to_str().unwrap()), ("PHEYE_CUDA_ARCHS", "80")];
        all.extend(vars);
        self.run(&all)
    }

    /// The generated code.
    fn images(&self) -> String {
        fs::read_to_string(self.path("target/debug/build/own-1/out/kernels.rs")).unwrap()
    }
}

#[track_caller]
fn compiled(ran: &Ran, expected: &[&str]) {
    assert!(!ran.failed, "{}", ran.said);
    assert_eq!(ran.compiled, expected.iter().map(|&line| line.to_owned()).collect());
}

#[test]
fn only_what_changed_is_compiled_again() {
    let package = Package::new();
    compiled(&package.build(&[]), &["one.cu sm_80", "two.cu sm_80"]);
    let images = package.images();
    assert!(
        images.contains(r#"Image::new("fused/two""#) && images.contains(r#"&["one_bwd", "one_fwd"])"#),
        "{images}"
    );
    compiled(&package.build(&[]), &[]);

    package.write("kernels/one.cu", "#include \"common.cuh\"\nkernel one_all\n");
    compiled(&package.build(&[]), &["one.cu sm_80"]);
    assert!(package.images().contains(r#"&["one_all"])"#));
    // A direct header of one source, and an indirect header of the other.
    package.write("kernels/include/common.cuh", "#pragma once\n// changed\n");
    compiled(&package.build(&[]), &["one.cu sm_80"]);
    package.write("kernels/include/inner.cuh", "#pragma once\n// changed\n");
    compiled(&package.build(&[]), &["two.cu sm_80"]);
    // A header that did not exist before. The folder of the including file is searched first.
    package.write("kernels/fused/missing.cuh", "#pragma once\n");
    compiled(&package.build(&[]), &["two.cu sm_80"]);
    // The cache depends on contents, not on modification times, and keeps earlier versions.
    package.write("kernels/include/inner.cuh", "#pragma once\n");
    package.write("kernels/one.cu", "#include \"common.cuh\"\nkernel one_all\n");
    compiled(&package.build(&[]), &["two.cu sm_80"]);
    fs::remove_file(package.path("kernels/fused/missing.cuh")).unwrap();
    compiled(&package.build(&[]), &[]);

    // Another architecture, another flag, another compiler version.
    compiled(&package.build(&[("PHEYE_CUDA_ARCHS", "80,90a")]), &["one.cu sm_90a", "two.cu sm_90a"]);
    compiled(&package.build(&[("PHEYE_CUDA_FLAGS", "-lineinfo")]), &["one.cu sm_80", "two.cu sm_80"]);
    package.write("bin/version", "release 13.1\n");
    compiled(&package.build(&[]), &["one.cu sm_80", "two.cu sm_80"]);
}

#[test]
fn what_does_not_compile_is_tried_again() {
    let package = Package::new();
    package.write("kernels/one.cu", "#error\n");
    for _ in 0..2 {
        let ran = package.build(&[]);
        assert!(ran.failed && ran.compiled.contains("one.cu sm_80"), "{}", ran.said);
        // The output has the compiler's message and the command.
        assert!(
            ran.said.contains("error: as the test wishes") && ran.said.contains("-arch=sm_80"),
            "{}",
            ran.said
        );
    }
    package.write("kernels/one.cu", "kernel one\n");
    // The other source was compiled in the failed build.
    compiled(&package.build(&[]), &["one.cu sm_80"]);
}

#[test]
fn cargo_is_told_what_to_watch() {
    let package = Package::new();
    let said = package.build(&[]).said;
    for line in
        ["rerun-if-changed=kernels", "rerun-if-env-changed=PHEYE_CUDA_ARCHS", "rerun-if-env-changed=NVCC"]
    {
        assert!(said.contains(&format!("cargo::{line}")), "{said}");
    }
    assert!(said.contains(&format!("rerun-if-changed={}", package.path("bin/nvcc").display())), "{said}");
}

#[test]
fn pheye_cuda_says_whether_there_must_be_kernels() {
    let package = Package::new();
    // Without nvcc.
    for mode in ["", "auto"] {
        let ran = package.run(&[("PHEYE_CUDA", mode)]);
        assert!(!ran.failed, "{}", ran.said);
        let images = package.images();
        assert!(images.contains("\"there is no nvcc in $NVCC, $CUDA_HOME"), "{images}");
        assert!(!images.contains("Image::new("), "{images}");
    }
    let required = package.run(&[("PHEYE_CUDA", "require")]);
    assert!(required.failed);
    for part in ["PHEYE_CUDA=require, but there is no nvcc", "scripts/install-nvcc"] {
        assert!(required.said.contains(part), "{}", required.said);
    }
    // With nvcc.
    compiled(&package.build(&[("PHEYE_CUDA", "off")]), &[]);
    assert!(package.images().contains("\"the build ran with PHEYE_CUDA=off\""));
    compiled(&package.build(&[("PHEYE_CUDA", "require")]), &["one.cu sm_80", "two.cu sm_80"]);
    assert!(package.images().contains("IMAGES, &[\"80\"], \"\", &["));
    let unknown = package.build(&[("PHEYE_CUDA", "yes")]);
    assert!(unknown.failed && unknown.compiled.is_empty());
    assert!(
        unknown.said.contains("PHEYE_CUDA is `yes`, and may be require, auto or off"),
        "{}",
        unknown.said
    );
}

#[test]
fn nvcc_is_taken_at_its_word_and_otherwise_found() {
    let package = Package::new();
    let wrong = ("NVCC", "/nonexistent/nvcc");
    let ran = package.run(&[wrong, ("PHEYE_CUDA", "require")]);
    assert!(ran.failed && ran.said.contains("NVCC is set, but cannot run /nonexistent/nvcc"), "{}", ran.said);
    assert!(!package.run(&[wrong]).failed);
    assert!(package.images().contains("NVCC is set, but"), "{}", package.images());

    let root = package.root.path().to_str().unwrap();
    let path = format!("/nonexistent:{root}/bin");
    let archs = ("PHEYE_CUDA_ARCHS", "80");
    // Found in `PATH` and in a toolkit; the folder is called `bin` in both.
    for (flag, vars) in
        [("-a", ("CUDA_HOME", root)), ("-b", ("CUDA_PATH", root)), ("-c", ("PATH", path.as_str()))]
    {
        let ran = package.run(&[vars, archs, ("PHEYE_CUDA", "require"), ("PHEYE_CUDA_FLAGS", flag)]);
        compiled(&ran, &["one.cu sm_80", "two.cu sm_80"]);
    }
    // The folder into which scripts/install-nvcc installs it.
    fs::create_dir_all(package.path("target/cuda")).unwrap();
    fs::rename(package.path("bin"), package.path("target/cuda/bin")).unwrap();
    let ran = package.run(&[archs, ("PHEYE_CUDA", "require")]);
    assert!(!ran.failed && package.images().contains("one_fwd"), "{}", ran.said);
}

#[test]
fn pheye_cuda_archs_is_a_list_of_what_nvcc_knows() {
    let package = Package::new();
    let of = |list: &str| package.build(&[("PHEYE_CUDA_ARCHS", list)]);
    let two = |archs: &[&str]| -> BTreeSet<String> {
        archs.iter().flat_map(|arch| ["one", "two"].map(|name| format!("{name}.cu {arch}"))).collect()
    };
    assert_eq!(of("sm_80, 90a").compiled, two(&["sm_80", "sm_90a"]));
    assert_eq!(of("compute_80").compiled, two(&["compute_80"]));
    // The kernels of PTX are listed too.
    assert!(package.images().contains(r#"&["two_fwd"])"#), "{}", package.images());
    let fatbin = fs::read_to_string(package.path("target/debug/build/own-1/out/cuda/one.fatbin")).unwrap();
    assert!(fatbin.contains("kind=ptx,sm=80"), "{fatbin}");
    // The default is the list in the README, restricted to what this compiler supports.
    let all = of("");
    assert!(!all.failed, "{}", all.said);
    let fatbin = fs::read_to_string(package.path("target/debug/build/own-1/out/cuda/one.fatbin")).unwrap();
    assert_eq!(
        fatbin.trim(),
        "--image3=kind=elf,sm=80 --image3=kind=elf,sm=86 --image3=kind=elf,sm=90a --image3=kind=ptx,sm=80"
    );

    for (list, reason) in [
        ("80,100a", "does not compile for the architecture `100a`"),
        ("eighty", "`eighty`"),
        (" , ", "empty"),
    ] {
        let ran = of(list);
        assert!(ran.failed && ran.compiled.is_empty(), "{list}: {}", ran.said);
        assert!(ran.said.contains("PHEYE_CUDA_ARCHS") && ran.said.contains(reason), "{list}: {}", ran.said);
    }
}
