//! Bounds for the golden folders on a GPU, by PyTorch.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Writes golden_bf16.safetensors into the folders named, or into those of tests/golden.
pub fn bounds(args: &[String]) -> Result<()> {
    let script = crate::root().join("tests/golden/bf16.py");
    let status = Command::new("python3")
        .arg(&script)
        .args(args)
        .status()
        .context("python3, with torch and safetensors, was not found")?;
    ensure!(status.success(), "{}: {status}", script.display());
    Ok(())
}
