//! The repository keeps its own rules: `cargo xtask tidy` finds nothing.

use std::process::Command;

#[test]
fn the_repository_is_tidy() {
    let ran = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("tidy").output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
}
