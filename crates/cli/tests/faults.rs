//! System calls that fail, and kills between two system calls: a run or a conversion must either fail with an
//! error or continue, and the same command (with `--resume`) must then produce the same bits as an
//! undisturbed one.
//!
//! Needs `strace`. A few calls of each kind are disturbed; `PHEYE_FAULTS=N` sets the number per kind, spread
//! over the run, and `PHEYE_FAULTS=all` disturbs every call.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::{Bench, Ended, ends, golden, pheye, s, same, tree};

/// The system calls of a training run that are disturbed, and how (strace's fault injection).
const TRAIN: &[(&str, &str)] = &[
    ("write", "error=ENOSPC"),
    ("write", "error=EIO"),
    ("write", "signal=KILL"),
    ("openat", "error=EMFILE"),
    ("openat", "error=ENOSPC"),
    ("fsync", "error=EIO"),
    ("fsync", "signal=KILL"),
    ("rename", "error=EIO"),
    ("rename", "error=ENOSPC"),
    ("rename", "signal=KILL"),
    ("mkdir", "error=ENOSPC"),
    ("mkdir", "signal=KILL"),
    ("unlink", "error=EIO"),
    ("unlinkat", "error=EIO"),
    ("unlinkat", "signal=KILL"),
    ("flock", "error=ENOLCK"),
    ("clone3", "error=EAGAIN"),
];

/// The same for a conversion.
const CONVERT: &[(&str, &str)] = &[
    ("write", "error=ENOSPC"),
    ("write", "signal=KILL"),
    ("openat", "error=EMFILE"),
    ("openat", "signal=KILL"),
    ("fsync", "error=EIO"),
    ("fsync", "signal=KILL"),
    ("rename", "error=ENOSPC"),
    ("rename", "signal=KILL"),
    ("mkdir", "error=ENOSPC"),
    ("mkdir", "signal=KILL"),
    ("unlink", "signal=KILL"),
    ("unlinkat", "signal=KILL"),
];

/// Number of calls of each kind that are disturbed.
fn moments() -> usize {
    match std::env::var("PHEYE_FAULTS").as_deref() {
        Ok("all") => usize::MAX,
        Ok(n) => n.parse().expect("PHEYE_FAULTS is a number or `all`"),
        Err(_) => 2,
    }
}

/// The command under strace with `options`; prints a message and returns `None` if strace is missing or may
/// not trace.
fn strace(options: &[&str], args: &[&str]) -> Option<Command> {
    let may = Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|s| s.success());
    if !may {
        println!("skipped: strace is not there, or may not trace");
        return None;
    }
    let command = pheye(args);
    let mut traced = Command::new("strace");
    traced.args(["-f", "--seccomp-bpf"]).args(options).arg(command.get_program()).args(command.get_args());
    traced.env("RAYON_NUM_THREADS", "1");
    Some(traced)
}

/// For each system call, the largest number of calls that a single thread makes.
fn counts(calls: &[(&str, &str)], log: &Path, args: &[&str]) -> Option<BTreeMap<String, usize>> {
    let names: Vec<&str> = calls.iter().map(|(name, _)| *name).collect();
    let trace = format!("trace={}", names.join(","));
    let mut command = strace(&["-o", s(log), "-e", &trace], args)?;
    assert_eq!(Ended::from(command.output().unwrap()).code, Some(0));
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let mut words = line.splitn(2, ' ');
        let (Some(thread), Some(call)) = (words.next(), words.next()) else { continue };
        if let Some((name, _)) = call.trim().split_once('(') {
            *counts.entry((name.to_owned(), thread.to_owned())).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((name, _), n) in counts {
        let entry: &mut usize = most.entry(name).or_default();
        *entry = n.max(*entry);
    }
    Some(most)
}

/// Up to `wanted` numbers from 1 to `n`, evenly spaced, including the first and the last.
fn spread(n: usize, wanted: usize) -> Vec<usize> {
    let wanted = wanted.min(n);
    (0..wanted).map(|i| 1 + i * (n - 1) / (wanted - 1).max(1)).collect()
}

/// Runs the command once per disturbed call and then calls `check` with its folder; returns the number of
/// runs.
fn disturb(
    calls: &[(&str, &str)],
    log: &Path,
    prepare: impl Fn() -> (Bench, Vec<String>),
    check: impl Fn(&Bench, &str),
) -> usize {
    let (bench, args) = prepare();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let Some(counts) = counts(calls, log, &args) else { return 0 };
    drop(bench);
    let mut tried = 0;
    for (call, what) in calls {
        for k in spread(counts.get(*call).copied().unwrap_or(0), moments()) {
            let (bench, args) = prepare();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let inject = format!("inject={call}:{what}:when={k}");
            let Some(mut command) = strace(&["-o", "/dev/null", "-e", &inject], &args) else { return 0 };
            let ended = Ended::from(command.output().unwrap());
            let killed = what.ends_with("KILL") && ended.code.is_none_or(|code| code == 137);
            // Exit code 127: the dynamic loader could not open a library.
            assert!(killed || matches!(ended.code, Some(0 | 1 | 127)), "{inject}: {ended:#?}");
            assert!(
                ended.err.lines().filter(|line| line.starts_with("error: ")).count() <= 1,
                "said twice after {inject}: {ended:#?}"
            );
            check(&bench, &inject);
            tried += 1;
        }
    }
    tried
}

#[test]
fn training() {
    let whole = Bench::new();
    let write = |bench: &Bench| {
        bench.pheye("run.toml", 6, &[("train", "checkpoint_every = 2\nkeep = 2\nout = \"run\"")])
    };
    let file = write(&whole);
    ends(0, ["train", s(&file)]);
    let left = whole.left("run");
    std::fs::remove_dir_all(whole.path("run")).unwrap();
    let prepare = || {
        let bench = whole.twin();
        let file = s(&write(&bench)).to_owned();
        (bench, vec!["train".to_owned(), file, "--resume".to_owned()])
    };
    let tried = disturb(TRAIN, &whole.path("strace.log"), prepare, |bench, inject| {
        let ended = common::run(pheye(["train", s(&bench.path("run.toml")), "--resume"]));
        assert_eq!(ended.code, Some(0), "{inject}: {ended:#?}");
        println!("{inject}");
        same(&bench.left("run"), &left);
    });
    println!("{tried} disturbed runs");
}

#[test]
fn converting() {
    let top = Bench::new();
    let from = golden("x2-level2");
    let expected = top.path("expected");
    ends(0, ["convert", s(&from), s(&expected), "--shard-size", "500KB"]);
    let expected = tree(&expected);
    let args = |bench: &Bench| {
        ["convert", s(&from), s(&bench.path("to")), "--shard-size", "500KB"].map(str::to_owned).to_vec()
    };
    let prepare = || {
        let bench = Bench::empty();
        let args = args(&bench);
        (bench, args)
    };
    let tried = disturb(CONVERT, &top.path("strace.log"), prepare, |bench, inject| {
        println!("{inject}");
        // Three cases: there is no file with a final name; all files are complete; or the next attempt moves
        // the remaining files into place. A conversion killed after that has left a complete model, which
        // another conversion refuses to overwrite.
        let whole = bench.path("to/pheye.json").exists() && !bench.path("to/.partial/.moving").exists();
        ends(i32::from(whole), args(bench));
        same(&tree(&bench.path("to")), &expected);
    });
    println!("{tried} disturbed conversions");
}

/// The metrics of a checkpoint's steps are flushed to the disk before the checkpoint is created.
#[test]
fn metrics_reach_the_disk_before_a_checkpoint() {
    let bench = Bench::new();
    let file = bench.pheye("run.toml", 4, &[("train", "checkpoint_every = 2\nout = \"run\"")]);
    let log = bench.path("strace.log");
    let options = ["-y", "-o", s(&log), "-e", "trace=fdatasync,rename"];
    let Some(mut command) = strace(&options, &["train", s(&file)]) else { return };
    assert_eq!(Ended::from(command.output().unwrap()).code, Some(0));
    let log = std::fs::read_to_string(&log).unwrap();
    let mut synced = 0;
    let mut checkpoints = 0;
    for line in log.lines() {
        if line.contains("fdatasync(") && line.contains("/metrics.jsonl>") {
            synced += 1;
        } else if line.contains("rename(") && line.contains("/checkpoints/step-00000") {
            checkpoints += 1;
            assert!(synced >= checkpoints, "the metrics are not on the disk:\n{log}");
        }
    }
    assert_eq!(checkpoints, 2, "{log}");
}

#[test]
fn an_interrupted_conversion() {
    let bench = Bench::empty();
    let to = bench.path("to");
    let from = golden("x2-level2");
    let args = ["convert", s(&from), s(&to), "--shard-size", "50KB"];
    // The signal arrives at the fifth fsync, after the first shards and long before the last one. It is not SIGINT, which
    // this test's process may have been started with ignored.
    let options = ["-o", "/dev/null", "-e", "inject=fsync:signal=TERM:when=5"];
    let Some(mut command) = strace(&options, &args) else { return };
    let ended = Ended::from(command.output().unwrap());
    assert_eq!(ended.code, Some(130), "{ended:#?}");
    let partial = to.join(".partial").display().to_string();
    assert!(ended.err.contains("the same command starts again"), "{ended:#?}");
    assert!(ended.err.contains(&partial), "{ended:#?}");
    assert!(!to.join("pheye.json").exists() && !to.join("model.safetensors.index.json").exists());
    ends(0, args);
    assert!(to.join("pheye.json").exists() && !to.join(".partial").exists());
}
