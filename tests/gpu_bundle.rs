//! `run.sh` of a bundle finds all it names in what `scripts/gpu-bundle` says it packs: every step runs over programs that do nothing.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn run_sh_needs_nothing_that_the_bundle_lacks() {
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
            // Fails where a path that it was given is not there.
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

    let path = format!("{}:/usr/bin:/bin", bundle.path().join("machine").display());
    let ran = Command::new(bundle.path().join("run.sh"))
        .env("PATH", path)
        .env_remove("PHEYE_PYTHON")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let results = fs::read_to_string(bundle.path().join("results/results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    let steps = results["steps"].as_array().unwrap();
    let named = |start: &str| steps.iter().filter(|s| s["step"].as_str().unwrap().starts_with(start)).count();
    let tests = listed.lines().filter(|name| name.starts_with("bin/tests/")).count();
    assert!(tests > 5, "{listed}");
    assert_eq!([named("info"), named("test-"), named("bench")], [3, tests, 1], "{said}");
    assert_eq!(
        named("verify-"),
        fs::read_dir(root.join("tests/golden"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().is_dir())
            .count()
    );
    // The launcher's tests do without the four tools.
    assert_eq!(named("memcheck-"), tests - 1, "{said}");
    assert!(steps.iter().all(|step| step["exit"] == 0), "{results}");
}
