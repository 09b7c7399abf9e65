//! The golden folders pass, stage by stage.

use std::path::{Path, PathBuf};

use pheye_eval::verify;
use pheye_ops::Cx;

const CASES: [&str; 3] = ["level1", "x2-level2", "x4-level3"];

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(case)
}

#[test]
fn golden_folders_pass() {
    for case in CASES {
        let report = verify(&Cx::cpu(), &golden(case)).unwrap();
        let failed: Vec<_> = report.stages.iter().filter(|s| !s.passed()).collect();
        assert!(failed.is_empty(), "{case}: {failed:#?}");
        assert!(report.stages.len() > 30, "{case}: only {} stages", report.stages.len());
    }
}

/// Kernels run on the CPU here, in bf16, each lane on its own: a minute or more.
#[cfg(feature = "emulator")]
#[test]
fn golden_folders_pass_on_the_emulator() {
    for case in CASES {
        let report = verify(&Cx::new("emulator".parse().unwrap()), &golden(case)).unwrap();
        let failed: Vec<_> = report.stages.iter().filter(|s| !s.passed()).collect();
        assert!(failed.is_empty(), "{case}: {failed:#?}");
        assert!(report.stages.len() > 30, "{case}: only {} stages", report.stages.len());
    }
}

#[cfg(feature = "emulator")]
#[test]
fn bounds_for_a_gpu_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = "golden.safetensors";
    std::fs::copy(golden("level1").join(file), dir.path().join(file)).unwrap();
    let error = verify(&Cx::new("emulator".parse().unwrap()), dir.path()).unwrap_err().to_string();
    assert!(error.contains("golden_bf16.safetensors") && error.contains("xtask golden"), "{error}");
}
