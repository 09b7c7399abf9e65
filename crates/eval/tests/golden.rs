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
