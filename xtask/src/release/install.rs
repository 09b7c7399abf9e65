//! install.sh with the archives of the dry run, from a folder in place of a release's address.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

/// Installs the archive of a target into a temporary folder and runs the program there. Returns what `pheye --version`
/// prints.
pub(crate) fn run(root: &Path, archives: &Path, target: &str) -> Result<String> {
    let home = tempfile::tempdir().context("a temporary folder")?;
    let base = format!("file://{}", archives.display());
    let ran = install(root, &base, home.path(), target)?;
    ensure!(ran.status.success(), "install.sh: {}", String::from_utf8_lossy(&ran.stderr).trim());
    let program = home.path().join("pheye");
    let ran =
        Command::new(&program).arg("--version").output().with_context(|| program.display().to_string())?;
    ensure!(ran.status.success(), "pheye --version: {}", String::from_utf8_lossy(&ran.stderr).trim());
    Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}

/// Whether install.sh refuses an archive with a changed byte, one that the list of checksums lacks, and a missing
/// address, and installs nothing then. Returns its faults.
pub(crate) fn refuses(root: &Path, archive: &Path, target: &str) -> Result<Vec<String>> {
    let release = tempfile::tempdir().context("a temporary folder")?;
    let home = tempfile::tempdir().context("a temporary folder")?;
    let name = archive.file_name().context("the name of the archive")?;
    let mut bytes = fs::read(archive).with_context(|| archive.display().to_string())?;
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    fs::write(release.path().join(name), bytes)?;
    let list = archive.with_file_name("SHA256SUMS");
    let sums = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let base = release.path().display().to_string();
    let mut faults = Vec::new();
    for (what, sums, base) in [
        ("an archive with a changed byte", sums.as_str(), base.as_str()),
        ("an archive that SHA256SUMS lacks", "", base.as_str()),
        ("a missing address", "", ""),
    ] {
        fs::write(release.path().join("SHA256SUMS"), sums)?;
        let ran = install(root, base, home.path(), target)?;
        if ran.status.success() || fs::read_dir(home.path())?.next().is_some() {
            faults.push(format!("install.sh does not refuse {what}"));
        }
    }
    Ok(faults)
}

fn install(root: &Path, base: &str, to: &Path, target: &str) -> Result<Output> {
    Command::new("sh")
        .arg(root.join("install.sh"))
        .env("PHEYE_BASE_URL", base)
        .env("PHEYE_INSTALL_DIR", to)
        .env("PHEYE_TARGET", target)
        .output()
        .context("sh install.sh")
}
