//! Computes golden data with PyTorch and transformers.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Writes golden_bf16.safetensors to the given folders, by default to those of tests/golden.
pub(crate) fn bounds(args: &[String]) -> Result<()> {
    python("bf16.py", args)
}

/// Writes generate.json, for which golden_bf16.safetensors must exist.
pub(crate) fn generate(args: &[String]) -> Result<()> {
    python("generate.py", args)
}

fn python(script: &str, args: &[String]) -> Result<()> {
    let script = crate::root().join("tests/golden").join(script);
    let status = Command::new("python3")
        .arg(&script)
        .args(args)
        .status()
        .context("python3, with torch and safetensors, was not found")?;
    ensure!(status.success(), "{}: {status}", script.display());
    Ok(())
}
