//! THIRD_PARTY.md of an archive: the crates inside the program with the texts of their licences, and the files that
//! the program embeds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::metadata::{self, Metadata, Package};
use super::target;

/// The folders of this repository with fonts, images and tables that are not its own, each beside its notice.
const EMBEDDED: [&str; 4] =
    ["crates/scene/fonts", "crates/scene/backgrounds", "crates/cli/font", "crates/metrics"];

/// The document for the program of a target, and the number of crates in it.
pub(crate) fn document(root: &Path, metadata: &Metadata, target: &str) -> Result<(String, usize)> {
    let packages = linked(root, metadata, target)?;
    let mut out = String::from(
        "# Third-party software\n\n\
         The program `pheye` contains the crates of this list, the standard library of Rust (COPYRIGHT-library.html), and \
         fonts, images and tables with notices of their own. Their licences follow the list; where a crate offers several, any \
         of them may be chosen.\n\n\
         | crate | version | licence | source |\n|---|---|---|---|\n",
    );
    // Crates often have the same text, which is printed once.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut bare = Vec::new();
    for package in &packages {
        let Package { name, version, license, repository, .. } = package;
        let (licence, source) = (license.as_deref().unwrap_or("none"), repository.as_deref().unwrap_or(""));
        let _ = writeln!(out, "| {name} | {version} | {licence} | {source} |");
        let files = notices(package.folder())?;
        if files.is_empty() {
            bare.push(format!("{name} {version}"));
        }
        for file in files {
            let title = format!("{name} {version}, {}", shown(package.folder(), &file));
            texts.entry(text(&file)?).or_default().push(title);
        }
    }
    if !bare.is_empty() {
        let _ = writeln!(
            out,
            "\nThe packages of these crates have no file with their licence: {}.",
            bare.join(", ")
        );
    }
    for folder in EMBEDDED {
        for file in embedded(&root.join(folder))? {
            texts.entry(text(&file)?).or_default().push(shown(root, &file));
        }
    }
    let mut sections: Vec<_> = texts.into_iter().collect();
    sections.sort_by(|a, b| a.1.cmp(&b.1));
    for (text, titles) in sections {
        let _ = write!(out, "\n## {}\n\n", titles.join("; "));
        // Indented, so that nothing in a licence is taken for Markdown.
        text.lines().for_each(|line| {
            let _ = writeln!(out, "{}", format!("    {line}").trim_end());
        });
    }
    Ok((out, packages.len()))
}

/// The crates from a registry that are linked into the program.
fn linked<'a>(root: &Path, metadata: &'a Metadata, target: &str) -> Result<Vec<&'a Package>> {
    let mut tree = metadata::cargo(root);
    tree.args(["tree", "--locked", "-p", "pheye-cli", "--edges", "normal,no-proc-macro", "--target", target]);
    tree.args(["--prefix", "none", "--format", "{p}"]).args(target::features(target));
    let ran = tree.output().context("cargo tree")?;
    ensure!(ran.status.success(), "cargo tree: {}", String::from_utf8_lossy(&ran.stderr).trim());
    let listed = String::from_utf8_lossy(&ran.stdout);
    let names: BTreeSet<(&str, &str)> = listed
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect();
    let inside = |package: &&Package| {
        !package.is_ours() && names.contains(&(package.name.as_str(), package.version.as_str()))
    };
    let mut packages: Vec<&Package> = metadata.packages.iter().filter(inside).collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(packages)
}

/// The licences and notices of a crate, by their names.
fn notices(folder: &Path) -> Result<Vec<PathBuf>> {
    let start = ["license", "licence", "copying", "copyright", "notice", "unlicense"];
    files(folder, |name| start.iter().any(|start| name.to_lowercase().starts_with(start)))
}

/// The notices in a folder of this repository, without the licences of the project itself.
fn embedded(folder: &Path) -> Result<Vec<PathBuf>> {
    files(folder, |name| name.contains("LICENSE") && !["LICENSE-MIT", "LICENSE-APACHE"].contains(&name))
}

/// The files directly in a folder whose names are wanted.
fn files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut found: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    found.retain(|path| path.is_file() && wanted(&path.file_name().unwrap_or_default().to_string_lossy()));
    found.sort();
    Ok(found)
}

fn text(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    Ok(String::from_utf8_lossy(&bytes).trim().replace("\r\n", "\n"))
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
