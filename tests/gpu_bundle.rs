//! `run.sh` of a bundle, over programs that do nothing: it finds all it names in what `scripts/gpu-bundle` says it packs, keeps to its
//! budget, says what failed, and runs only that the next time.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A bundle whose programs do nothing but fail where a path that they were given is not there, and its list of files.
fn bundle() -> (TempDir, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new(root.join("scripts/gpu-bundle")).arg("--list").output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let bundle = tempfile::tempdir().unwrap();
    for name in listed.lines() {
        let to = bundle.path().join(name);
        match name {
            "run.sh" => program(&to, &fs::read_to_string(root.join("scripts/gpu-run")).unwrap()),
            "commit" => fs::write(to, "none\n").unwrap(),
            _ if name.starts_with("bin/") => program(
                &to,
                "#!/bin/sh\nfor a; do case \"$a\" in */*) [ -e \"$a\" ] || { echo \"no $a\"; exit 3; } ;; esac; done\n",
            ),
            _ => {
                let from = root.join(name);
                assert!(from.exists(), "{name} is listed and not there");
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(from, to).unwrap();
            }
        }
    }
    // What `xtask bench` opens by itself.
    for family in ["linear", "attention", "rowwise", "cross_entropy", "adamw"] {
        for name in [format!("bin/{family}"), format!("benches/peers/{family}.py")] {
            assert!(bundle.path().join(&name).exists(), "the bundle lacks {name}");
        }
    }
    // Of the machine there, not of the bundle.
    for name in ["nvidia-smi", "python3"] {
        program(&bundle.path().join("machine").join(name), "#!/bin/sh\n");
    }
    let sanitizer = "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do shift 2; done\nexec \"$@\"\n";
    program(&bundle.path().join("machine/compute-sanitizer"), sanitizer);
    (bundle, listed)
}

/// What `run.sh` printed, its exit code, and its results.
fn run(bundle: &Path, args: &[&str]) -> (String, Option<i32>, Value) {
    let path = format!("{}:/usr/bin:/bin", bundle.join("machine").display());
    let ran = Command::new(bundle.join("run.sh"))
        .args(args)
        .env("PATH", path)
        .env_remove("PHEYE_PYTHON")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    let results = fs::read_to_string(bundle.join("results/results.json")).unwrap_or("null".to_owned());
    (said, ran.status.code(), serde_json::from_str(&results).unwrap())
}

fn steps<'a>(results: &'a Value, outcome: &str) -> Vec<&'a str> {
    let all = results["steps"].as_array().unwrap().iter();
    all.filter(|step| step["outcome"] == outcome).map(|step| step["step"].as_str().unwrap()).collect()
}

#[test]
fn run_sh_needs_nothing_that_the_bundle_lacks() {
    let (bundle, listed) = bundle();
    let (said, code, results) = run(bundle.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    let ok = steps(&results, "ok");
    let named = |start: &str| ok.iter().filter(|step| step.starts_with(start)).count();
    // The tests of the launcher are one step.
    let families = listed.lines().filter(|name| name.starts_with("bin/tests/")).count() - 1;
    assert!(families > 5, "{listed}");
    let golden = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")).unwrap();
    let golden = golden.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    for (start, count) in [
        ("first-", families),
        ("launcher", 1),
        ("test-", families),
        ("verify-", golden),
        ("train-", 4),
        ("infer", 4),
        ("bench", 1),
        ("memcheck-", families),
        ("racecheck-", families),
    ] {
        assert_eq!(named(start), count, "{start}: {said}");
    }
    assert_eq!(results["steps"].as_array().unwrap().len(), ok.len());
    let files: Vec<_> = fs::read_dir(bundle.path().join("results")).unwrap().collect();
    assert!(files.len() <= 8, "{files:?}");
}

/// With a test filter of a test that does not exist, a test program passes without having run anything.
#[test]
fn the_smallest_tests_exist() {
    let (bundle, _) = bundle();
    let (said, ..) = run(bundle.path(), &["--list", "first"]);
    let mut found = 0;
    for line in said.lines().filter(|line| line.contains("--exact")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (program, test) = (words[3], words[words.len() - 1].trim_start_matches("gpu::"));
        let source = format!("crates/ops/tests/{}.rs", program.trim_start_matches("bin/tests/"));
        let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(source)).unwrap();
        let (_, gpu) = source.split_once("\nmod gpu {").unwrap();
        assert!(gpu.contains(&format!("    fn {test}()")), "{program} has no test {test} in its module gpu");
        found += 1;
    }
    assert!(found > 5, "{said}");
}

#[test]
fn what_fails_is_said_and_runs_again() {
    let (bundle, _) = bundle();
    program(
        &bundle.path().join("bin/tests/rows"),
        "#!/bin/sh\necho \"error: a \\\"quoted\\\" reason\"\nexit 7\n",
    );
    let (said, code, results) = run(bundle.path(), &["tests", "verify"]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(steps(&results, "failed"), ["test-rows"], "{said}");
    let failed =
        results["steps"].as_array().unwrap().iter().find(|step| step["step"] == "test-rows").unwrap();
    assert_eq!((&failed["exit"], failed["why"].as_str()), (&7.into(), Some("error: a \"quoted\" reason")));
    let log = fs::read_to_string(bundle.path().join("results/tests.log")).unwrap();
    assert!(log.contains("== test-rows: exit code 7"), "{log}");

    let earlier = bundle.path().join("earlier.json");
    fs::copy(bundle.path().join("results/results.json"), &earlier).unwrap();
    let again = ["--failed", earlier.to_str().unwrap(), "tests", "verify"];
    let (said, code, results) = run(bundle.path(), &again);
    assert_eq!((code, results["steps"].as_array().unwrap().len()), (Some(1), 1), "{said}");
    for wrong in [&["--budget", "soon"][..], &["--failed", "/nowhere"], &["--fast"], &["--budget"]] {
        let (said, code, _) = run(bundle.path(), wrong);
        assert_eq!(code, Some(2), "{said}");
    }
}

#[test]
fn a_budget_is_kept() {
    let (bundle, _) = bundle();
    program(&bundle.path().join("bin/pheye"), "#!/bin/sh\nexec sleep 60\n");
    let begun = Instant::now();
    let (said, code, results) = run(bundle.path(), &["--budget", "4", "tests", "verify"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{said}");
    assert_eq!(code, Some(1), "{said}");
    // The golden folders come after the tests; the first of them takes what time is left.
    assert_eq!(steps(&results, "failed"), [""; 0], "{said}");
    assert!(steps(&results, "out of time").iter().all(|step| step.starts_with("verify-")), "{said}");
    assert!(!steps(&results, "ok").is_empty() && !steps(&results, "not run").is_empty(), "{said}");
}
