//! What PyTorch and transformers say of the golden folders.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Writes golden_bf16.safetensors into the folders named, or into those of tests/golden.
pub fn bounds(args: &[String]) -> Result<()> {
    python("bf16.py", args)
}

/// Writes generate.json, which needs golden_bf16.safetensors.
pub fn generate(args: &[String]) -> Result<()> {
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
