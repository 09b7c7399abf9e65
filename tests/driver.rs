//! The launcher over a stand-in for NVIDIA's driver (`tests/driver/libcuda.c`), so that what goes wrong on a GPU machine is seen on
//! any: every failure is the error it is documented to be, names what it is about, gives back what was taken, and never panics.
//!
//! A process loads one driver, so each case is a child process: this program again, running the test `child`.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![cfg(all(feature = "cuda", target_os = "linux"))]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use pheye_kernels::{Error, Gpu, In, Memory, Out, ParamField, Params, Result};

#[cfg(feature = "cublaslt")]
#[path = "driver/blas.rs"]
mod blas;
#[path = "driver/cases.rs"]
mod cases;

/// Name, threads, shared, parameters, tile, hash of the parameters' name (here `StandIn`), bytes of the record.
const KERNELS: &str = "standin_add 64 1024 16 1 2 3 577068272 28\n\
                       standin_large 64 90000 16 1 1 1 577068272 28\n\
                       standin_too_large 64 200000 16 1 1 1 577068272 28\n\
                       standin_bare 64 0 16 1 1 1 577068272 0\n\
                       standin_odd 64 0 16 1 1 1 577068272 8\n";

/// A fatbin that the stand-in reads.
fn image_of(kernels: &str) -> Vec<u8> {
    let text = format!("STAND-IN\n{kernels}\0");
    let mut bytes = vec![0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0];
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

/// `folder`, with the library `name` made of a `source` in `tests/driver`; none without a C compiler.
fn library(source: &str, folder: &str, name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    fs::create_dir_all(&folder).expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/driver").join(source);
    let part = folder.join(format!("{name}.{}", std::process::id()));
    let compiler = std::env::var_os("CC").unwrap_or("cc".into());
    let compiled = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-pthread", "-O1", "-o"])
        .arg(&part)
        .arg(source)
        .output();
    let Ok(compiled) = compiled else {
        eprintln!("skipped: there is no C compiler ({})", compiler.display());
        return None;
    };
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    fs::rename(part, folder.join(name)).expect("a library");
    Some(folder)
}

fn driver() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(|| library("libcuda.c", "driver", "libcuda.so")).as_deref()
}

/// What a child did.
struct Outcome {
    /// `Ok("…")` or `Err(…)`, as `Debug` prints them.
    result: String,
    /// What the error says to people.
    says: String,
    /// The calls of the driver.
    calls: Vec<String>,
}

impl Outcome {
    #[track_caller]
    fn is(&self, result: &str) {
        assert_eq!(self.result, result, "{}", self.calls.join("\n"));
    }

    #[track_caller]
    fn says(&self, parts: &[&str]) {
        assert!(parts.iter().all(|part| self.says.contains(part)), "{} should say {parts:?}", self.says);
    }

    fn count(&self, call: &str) -> usize {
        self.calls.iter().filter(|line| *line == call).count()
    }

    /// Whether everything was given back before the context was.
    fn is_clean(&self) -> bool {
        let left = self.calls.iter().filter(|line| line.starts_with("left:"));
        left.flat_map(|line| line.split(|c: char| !c.is_ascii_digit()))
            .filter(|n| !n.is_empty())
            .all(|n| n == "0")
    }
}

/// Runs a case in a child that finds libraries in `folder` and kernels in a file of [`KERNELS`], with `vars` set.
fn run_in(folder: &Path, case: &str, vars: &[(&str, &str)]) -> Outcome {
    let scratch = tempfile::tempdir().expect("a folder");
    let (log, kernels) = (scratch.path().join("log"), scratch.path().join("kernels.fatbin"));
    fs::write(&kernels, image_of(KERNELS)).expect("a file");
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    child.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
    child.env("STANDIN_CASE", case).env("STANDIN_LOG", &log).env("LD_LIBRARY_PATH", folder);
    child.env("PHEYE_KERNELS", &kernels);
    for variable in ["PHEYE_SYNC", "PHEYE_GEMM"] {
        child.env_remove(variable);
    }
    let ran = child.envs(vars.iter().copied()).output().expect("a child");
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let report = || format!("{case} {vars:?}\n{text}\n{}", String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{}", report());
    let line = |start: &str| {
        let found = text.lines().find_map(|line| Some(line.split_once(start)?.1.to_owned()));
        found.unwrap_or_else(|| panic!("no {start}: {}", report()))
    };
    let calls = fs::read_to_string(&log).unwrap_or_default();
    let path = kernels.to_string_lossy().into_owned();
    Outcome {
        result: line("result: ").replace(&path, "FILE"),
        says: line("says: ").replace(&path, "FILE"),
        calls: calls.lines().map(str::to_owned).collect(),
    }
}

/// Runs `case` over the stand-in driver, by [`run_in`]. Returns `None` without a C compiler.
fn run(case: &str, vars: &[(&str, &str)]) -> Option<Outcome> {
    Some(run_in(driver()?, case, vars))
}

#[test]
#[ignore = "it is one case in a process of its own, which the other tests start: cargo test --features cuda --test driver"]
fn child() {
    let Ok(case) = std::env::var("STANDIN_CASE") else { return };
    let (name, argument) = case.split_once(' ').unwrap_or((&case, ""));
    let outcome = match name {
        "open" => cases::open(argument),
        "work" => cases::work(),
        "alloc" => cases::alloc(argument),
        "kernel" => cases::kernel(argument),
        "launch" => cases::launch(argument),
        "failures" => cases::failures(),
        "threads" => cases::threads(),
        "arena" => cases::arena(argument),
        #[cfg(feature = "cublaslt")]
        "product" => blas::product(argument),
        other => panic!("no case {other}"),
    };
    let says = outcome.as_ref().err().map(Error::to_string).unwrap_or_default();
    println!("\nresult: {outcome:?}\nsays: {says}");
}

#[test]
fn a_stand_in_opens_works_and_gives_everything_back() {
    let Some(opened) = run("open cuda", &[]) else { return };
    opened.is("Ok(\"cuda:0 (Stand-in), 4 multiprocessors, 1073741824 of 1073741824 bytes free\")");
    assert!(opened.is_clean() && opened.count("cuDevicePrimaryCtxRelease_v2") == 1);
    let worked = run("work", &[]).unwrap();
    worked.is("Ok(\"250µs\")");
    assert!(worked.is_clean(), "{}", worked.calls.join("\n"));
    let ran: Vec<_> =
        worked.calls.iter().filter(|c| c.starts_with("ran standin_add on 3 2 1 of 64 1 1, 1024")).collect();
    assert!(ran.len() == 2 && !ran[0].ends_with(", recorded") && ran[1].ends_with(", recorded"), "{ran:?}");
    assert_eq!(worked.count("cuGraphLaunch"), 2);
    // Without a pool of memory the plain functions are used.
    let plain = run("work", &[("STANDIN_POOLS", "0")]).unwrap();
    plain.is("Ok(\"250µs\")");
    assert!(plain.is_clean() && plain.count("cuMemAlloc_v2") > 0 && plain.count("cuMemAllocAsync") == 0);
}

#[test]
fn no_driver_is_an_error() {
    // Files of its names that are no libraries, before any that the machine may have.
    let folder = tempfile::tempdir().unwrap();
    for name in ["libcuda.so", "libcuda.so.1"] {
        fs::write(folder.path().join(name), "no library").unwrap();
    }
    let outcome = run_in(folder.path(), "open cuda", &[]);
    outcome.is("Err(NoDriver)");
    outcome.says(&["no NVIDIA driver", "libcuda"]);
}

#[test]
fn what_the_machine_lacks_is_an_error_with_advice() {
    let name = "(CUDA_ERROR_OUT_OF_MEMORY)";
    let retained =
        format!("Err(Driver {{ call: \"cuDevicePrimaryCtxRetain\", cause: \"as the test wishes {name}\" }})");
    type Row<'a> = (&'a str, (&'a str, &'a str), &'a str, &'a str);
    let rows: [Row; 8] = [
        ("cuda", ("STANDIN_DEVICES", "0"), "Err(NoDevice { index: 0, count: 0 })", "the driver sees 0 GPUs"),
        ("cuda:3", ("STANDIN_DEVICES", "2"), "Err(NoDevice { index: 3, count: 2 })", "`cuda:3`"),
        ("cuda", ("STANDIN_FAIL", "cuInit:34:1:1"), "Err(NoDriver)", "no NVIDIA driver was found"),
        (
            "cuda",
            ("STANDIN_VERSION", "11040"),
            "Err(OldDriver { found: \"11.4\", needed: \"12.0\" })",
            "supports CUDA 11.4, the kernels need 12.0; install a newer driver",
        ),
        (
            "cuda",
            ("STANDIN_CAPABILITY", "75"),
            "Err(OldCard { name: \"Stand-in\", found: \"7.5\" })",
            "8.0 (Ampere) or later",
        ),
        (
            "cuda",
            ("STANDIN_FAIL", "cuInit:999:1:1"),
            "Err(Driver { call: \"cuInit\", cause: \"as the test wishes (CUDA_ERROR_UNKNOWN)\" })",
            "cuInit: as the test wishes",
        ),
        // One that the driver has no words for.
        (
            "cuda",
            ("STANDIN_FAIL", "cuInit:803:1:1"),
            "Err(Driver { call: \"cuInit\", cause: \"error 803 of the driver\" })",
            "error 803",
        ),
        ("cuda", ("STANDIN_FAIL", "cuDevicePrimaryCtxRetain:2:1:1"), &retained, name),
    ];
    for (device, var, result, says) in rows {
        let Some(outcome) = run(&format!("open {device}"), &[var]) else { return };
        outcome.is(result);
        outcome.says(&[says]);
    }
}

#[test]
fn kernels_that_are_not_embedded_or_not_for_the_card_are_errors() {
    let none = ("PHEYE_KERNELS", "");
    if pheye_kernels::KERNELS.images().is_empty() {
        let Some(outcome) = run("open cuda", &[none]) else { return };
        assert!(outcome.result.starts_with("Err(NoKernels { device: \"cuda\""), "{}", outcome.result);
        outcome.says(&[
            "this build has no GPU kernels",
            pheye_kernels::KERNELS.missing().unwrap_or("without a .cu file"),
        ]);
        return;
    }
    for code in ["209", "200"] {
        let Some(outcome) =
            run("open cuda", &[none, ("STANDIN_FAIL", &format!("cuModuleLoadData:{code}:1:1"))])
        else {
            return;
        };
        assert!(outcome.result.starts_with("Err(NoKernels { device: \"cuda:0\""), "{}", outcome.result);
        outcome.says(&[
            pheye_kernels::KERNELS.images()[0].source,
            "compute capability 9.0",
            "PHEYE_CUDA_ARCHS",
        ]);
        assert!(outcome.is_clean());
    }
    let outcome = run("open cuda", &[none, ("STANDIN_FAIL", "cuModuleLoadData:222:1:1")]).unwrap();
    outcome.is("Err(OldDriver { found: \"13.0\", needed: \"a later version\" })");
}

#[test]
fn a_file_of_kernels_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_string_lossy().into_owned()
    };
    let whole = image_of(KERNELS);
    let rows = [
        (folder.path().join("none.fatbin").to_string_lossy().into_owned(), "No such file"),
        (folder.path().to_string_lossy().into_owned(), "directory"),
        (file("text", b".version 8.0"), "neither a fatbin nor a cubin"),
        (file("empty", b""), "neither a fatbin nor a cubin"),
        (file("cut", &whole[..whole.len() - 1]), "the file is cut off"),
    ];
    for (path, reason) in rows {
        let Some(outcome) = run("open cuda", &[("PHEYE_KERNELS", &path)]) else { return };
        assert!(outcome.result.starts_with("Err(Replacement {"), "{}", outcome.result);
        outcome.says(&[&format!("PHEYE_KERNELS={path}: "), reason]);
        // The driver, which would read as far as the headers say, never saw it.
        assert!(outcome.count("cuModuleLoadData") == 0 && outcome.is_clean());
    }
    let refused = run("open cuda", &[("STANDIN_FAIL", "cuModuleLoadData:200:1:1")]).unwrap();
    refused
        .is("Err(Replacement { path: \"FILE\", reason: \"as the test wishes (CUDA_ERROR_INVALID_IMAGE)\" })");
}

#[test]
fn kernels_come_from_the_file_first_and_then_from_the_program() {
    let Some(ours) = run("kernel standin_add", &[]) else { return };
    ours.is(
        "Ok(\"Spec { threads: 64, shared: 1024, params: 16, tile: [1, 2, 3], params_name: 577068272 }\")",
    );
    // More shared memory than a block has unasked.
    let large = run("kernel standin_large", &[]).unwrap();
    assert!(large.result.contains("shared: 90000") && large.count("cuFuncSetAttribute") == 1);

    let absent = run("kernel standin_absent", &[]).unwrap();
    absent.is("Err(NoKernel { name: \"standin_absent\", crates: \"pheye-kernels\" })");
    absent.says(&["no kernel is called `standin_absent`"]);
    let bare = run("kernel standin_bare", &[]).unwrap();
    bare.says(&["standin_bare", "its record cannot be read", "KERNEL declares it"]);
    let odd = run("kernel standin_odd", &[]).unwrap();
    odd.says(&["standin_odd", "its record has 8 bytes, and not 28"]);
    let too_large = run("kernel standin_too_large", &[]).unwrap();
    too_large.says(&["standin_too_large", "needs 200000 bytes of shared memory", "102400", "Stand-in"]);

    // The stand-in takes an embedded kernel to have 128 threads.
    let Some(embedded) = pheye_kernels::KERNELS.images().first().and_then(|image| image.kernels.first())
    else {
        return;
    };
    let kernel = format!("kernel {embedded}");
    let there = run(&kernel, &[]).unwrap();
    assert!(
        there.result.contains("threads: 128") && there.count("cuModuleLoadData") == 2,
        "{}",
        there.result
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.fatbin");
    fs::write(&file, image_of(&format!("{embedded} 32 0 16 7 7 7 5 28\n"))).unwrap();
    let replaced = run(&kernel, &[("PHEYE_KERNELS", &file.to_string_lossy())]).unwrap();
    replaced.is("Ok(\"Spec { threads: 32, shared: 0, params: 16, tile: [7, 7, 7], params_name: 5 }\")");
    assert_eq!(replaced.count("cuModuleLoadData"), 1, "the embedded image was loaded too");
}

#[test]
fn too_little_memory_says_how_much_there_is() {
    for pools in ["1", "0"] {
        let vars = [("STANDIN_MEMORY", "1000000"), ("STANDIN_POOLS", pools)];
        let Some(much) = run("alloc 600000 500000", &vars) else { return };
        much.is("Err(OutOfMemory { wanted: 500000, free: 400000, total: 1000000 })");
        much.says(&["500000 bytes more are needed", "400000 of 1000000 are free"]);
        assert!(much.is_clean());
        run("alloc 600000 400000", &vars).unwrap().is("Ok(\"2 allocations\")");
        // More than there is in all: nobody is asked.
        let call = if pools == "1" { "cuMemAllocAsync" } else { "cuMemAlloc_v2" };
        let all = run("alloc 1000001", &vars).unwrap();
        all.is("Err(OutOfMemory { wanted: 1000001, free: 1000000, total: 1000000 })");
        assert_eq!(all.count(call), 0);
    }
    // What the pool holds in pieces of the wrong size is given back, and the memory is had.
    let trimmed = run("alloc 1000", &[("STANDIN_FAIL", "cuMemAllocAsync:2:1:1")]).unwrap();
    trimmed.is("Ok(\"1 allocations\")");
    assert!(trimmed.count("cuMemAllocAsync") == 2 && trimmed.is_clean());
}

#[test]
fn a_launch_that_fails_names_kernel_grid_and_shapes() {
    let launch =
        "Launch { kernel: \"standin_add\", grid: [3, 2, 1], regions: \"bf16 [4, 8], f32 [32]\", cause:";
    let refused = ("STANDIN_FAIL", "cuLaunchKernel:701:1:1");
    let Some(outcome) = run("launch 3", &[refused]) else { return };
    outcome.is(&format!("Err({launch} \"as the test wishes (CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES)\" }})"));
    outcome.says(&["kernel `standin_add` with grid [3, 2, 1] on bf16 [4, 8], f32 [32]: "]);
    assert!(outcome.is_clean());

    let wide = run("launch 3000000000", &[]).unwrap();
    wide.says(&[
        "standin_add",
        "[3000000000, 2, 1]",
        "bf16 [4, 8]",
        "a grid may have 2147483647 blocks along axis 0",
    ]);
    assert_eq!(wide.count("cuLaunchKernel"), 0);

    // A fault of a kernel that was queued: the wait that meets it names the suspects, or the kernel where each is waited for.
    let late = ("STANDIN_LATE", "700");
    let outcome = run("launch 3", &[late]).unwrap();
    let queued = "queued since the last synchronization: standin_add; PHEYE_SYNC=1 waits for each kernel";
    assert!(outcome.result.starts_with("Err(Driver { call: \"a synchronization\""), "{}", outcome.result);
    outcome.says(&["CUDA_ERROR_ILLEGAL_ADDRESS", queued]);
    let outcome = run("launch 3", &[late, ("PHEYE_SYNC", "1")]).unwrap();
    assert!(outcome.result.starts_with(&format!("Err({launch}")), "{}", outcome.result);
    outcome.says(&["kernel `standin_add`", "CUDA_ERROR_ILLEGAL_ADDRESS"]);
}

#[test]
fn what_threads_queue_is_queued_and_recordings_hold_their_own() {
    for pools in ["1", "0"] {
        let Some(outcome) = run("threads", &[("STANDIN_POOLS", pools)]) else { return };
        outcome.is("Ok(\"done\")");
        assert!(outcome.is_clean(), "{}", outcome.calls.join("\n"));
        let ran = |blocks: usize, recorded: bool| {
            let start = format!("ran standin_add on {blocks} 2 1 ");
            let lines = outcome.calls.iter().filter(|line| line.starts_with(&start));
            lines.filter(|line| line.ends_with(", recorded") == recorded).count()
        };
        // One thread rehearses and records 1 block twice; another queues 10 times while it rehearses, and 10 while it records.
        assert_eq!((ran(1, true), ran(1, false)), (2, 0), "{}", outcome.calls.join("\n"));
        assert_eq!((ran(2, true), ran(2, false)), (0, 10), "{}", outcome.calls.join("\n"));
        assert_eq!((ran(3, true), ran(3, false)), (0, 10), "{}", outcome.calls.join("\n"));
        assert_eq!(outcome.count("cuGraphLaunch"), 1);
    }
}

#[test]
fn an_arena_gives_its_idle_buffers_back_when_memory_is_short() {
    for pools in ["1", "0"] {
        let vars = [("STANDIN_MEMORY", "1000000"), ("STANDIN_POOLS", pools)];
        let Some(outcome) = run("arena 600000 500000 700000", &vars) else { return };
        outcome.is("Ok(\"3 buffers, one after another\")");
        assert!(outcome.is_clean());
        let none = run("arena 600000 1100000", &vars).unwrap();
        none.says(&["out of GPU memory", "1000000 of 1000000 are free"]);
        assert!(none.is_clean());
    }
}

#[test]
fn after_an_error_the_gpu_goes_on() {
    // A launch fails, the start or the end of a recording, an instantiation: the next try works as if nothing had been.
    for fail in [
        "cuLaunchKernel:701:1:1",
        "cuGraphInstantiateWithFlags:1:1:1",
        "cuStreamBeginCapture_v2:1:1:1",
        "cuStreamEndCapture:1:1:1",
    ] {
        let Some(outcome) = run("failures", &[("STANDIN_FAIL", fail)]) else { return };
        outcome.is("Ok(\"1 failed, then 250µs\")");
        assert!(outcome.is_clean(), "{fail}\n{}", outcome.calls.join("\n"));
    }
}

#[test]
fn whichever_call_fails_it_is_an_error_and_nothing_is_lost() {
    // Calls that give back, or wait at the end: a failure of theirs has nobody to tell.
    const QUIET: [&str; 11] = [
        "cuCtxSetCurrent",
        "cuDevicePrimaryCtxRelease_v2",
        "cuEventDestroy_v2",
        "cuGraphDestroy",
        "cuGraphExecDestroy",
        "cuMemFreeAsync",
        "cuMemFree_v2",
        "cuMemFreeHost",
        "cuMemPoolTrimTo",
        "cuModuleUnload",
        "cuStreamDestroy_v2",
    ];
    for pools in ["1", "0"] {
        let Some(whole) = run("work", &[("STANDIN_POOLS", pools)]) else { return };
        let mut calls = BTreeMap::<&str, usize>::new();
        for call in whole.calls.iter().filter(|call| call.starts_with("cu")) {
            *calls.entry(call).or_default() += 1;
        }
        assert!(calls.len() > 30, "{calls:?}");
        for (call, &count) in &calls {
            for at in BTreeSet::from([1, count / 2 + 1, count]) {
                let fail = format!("{call}:999:{at}:{at}");
                let outcome = run("work", &[("STANDIN_FAIL", &fail), ("STANDIN_POOLS", pools)]).unwrap();
                let told = outcome.result.starts_with("Err(") && outcome.says.contains("CUDA_ERROR_UNKNOWN");
                let at_the_end = *call == "cuStreamSynchronize" || QUIET.contains(call);
                assert!(
                    told || at_the_end && outcome.result.starts_with("Ok("),
                    "{fail}: {}",
                    outcome.result
                );
                // Without a pool memory is given back after a wait: if that fails, the device may still use it.
                let gives_back = call.contains("Free")
                    || call.contains("Destroy")
                    || *call == "cuModuleUnload"
                    || (*call == "cuStreamSynchronize" && pools == "0");
                assert!(gives_back || outcome.is_clean(), "{fail}\n{}", outcome.calls.join("\n"));
            }
        }
    }
}
