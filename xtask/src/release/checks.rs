//! The checks of a release that read files alone. Each returns its faults, one per line.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::metadata::{self, Metadata, Package};

/// The slugs of the registry's categories (crates.io/category_slugs) that crates here have; it drops any other one.
const CATEGORIES: [&str; 16] = [
    "algorithms",
    "caching",
    "command-line-utilities",
    "computer-vision",
    "data-structures",
    "development-tools::build-utils",
    "development-tools::testing",
    "emulators",
    "encoding",
    "filesystem",
    "hardware-support",
    "mathematics",
    "multimedia::images",
    "science",
    "text-processing",
    "web-programming::http-client",
];

/// Whether the manifest of each published crate is complete.
pub(crate) fn manifests(root: &Path) -> Result<Vec<String>> {
    let metadata = metadata::workspace(root)?;
    let published: Vec<&Package> = metadata.packages.iter().filter(|p| p.is_published()).collect();
    let mut faults: Vec<String> = published.iter().flat_map(|package| manifest(package)).collect();
    for (at, package) in published.iter().enumerate() {
        if let Some(other) = published[..at].iter().find(|other| other.keywords == package.keywords) {
            faults.push(format!("{} has the keywords of {}, and none of its own", package.name, other.name));
        }
    }
    Ok(faults)
}

fn manifest(package: &Package) -> Vec<String> {
    let mut faults = Vec::new();
    if package.description.is_none() || package.license.is_none() || package.rust_version.is_none() {
        faults.push("lacks a description, a licence or a rust-version".to_owned());
    }
    if package.repository.is_none() {
        faults.push("does not inherit the repository (repository.workspace = true)".to_owned());
    }
    let files = ["LICENSE-MIT", "LICENSE-APACHE"];
    if package.readme.is_none() || !files.iter().all(|file| package.folder().join(file).exists()) {
        faults.push("lacks a README.md, LICENSE-MIT or LICENSE-APACHE in its folder".to_owned());
    }
    if !(1..=5).contains(&package.keywords.len()) || !package.keywords.iter().all(|word| is_keyword(word)) {
        faults.push("needs one to five keywords of at most 20 letters, digits, `_`, `-` or `+`".to_owned());
    }
    let unknown = package.categories.iter().find(|slug| !CATEGORIES.contains(&slug.as_str()));
    if let Some(slug) = unknown {
        faults.push(format!("has the category {slug}; xtask/src/release/checks.rs lists the known ones"));
    }
    if !(1..=5).contains(&package.categories.len()) {
        faults.push("needs one to five categories".to_owned());
    }
    let library = package.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "lib"));
    let features = package.features.keys().any(|name| name != "default");
    match documented(package) {
        None if library && features => {
            faults.push(
                "has features, but no [package.metadata.docs.rs] that says which are documented".to_owned(),
            );
        }
        Some(names) => {
            let missing = names.iter().filter(|name| !package.features.contains_key(*name));
            faults.extend(missing.map(|name| format!("has no feature {name}, which docs.rs is to document")));
        }
        None => {}
    }
    faults.iter().map(|fault| format!("{} {fault}", package.name)).collect()
}

fn is_keyword(word: &str) -> bool {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '+');
    word.len() <= 20 && word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.chars().all(valid)
}

/// The features that docs.rs is told to document.
fn documented(package: &Package) -> Option<Vec<String>> {
    let features = package.metadata.as_ref()?.get("docs")?.get("rs")?.get("features")?;
    serde_json::from_value(features.clone()).ok()
}

/// The version of the workspace, and where another one is given.
pub(crate) fn versions(root: &Path, metadata: &Metadata) -> Result<(String, Vec<String>)> {
    let published: Vec<&Package> = metadata.packages.iter().filter(|p| p.is_published()).collect();
    let version = published.first().context("no crate is published")?.version.clone();
    let differs = |package: &&&Package| package.version != version;
    let mut faults: Vec<String> = published
        .iter()
        .filter(differs)
        .map(|package| format!("{} has version {}, not {version}", package.name, package.version))
        .collect();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).context("Cargo.toml")?;
    for line in manifest.lines().filter(|line| line.starts_with("pheye") && line.contains("version = ")) {
        if !line.contains(&format!("version = \"{version}\"")) {
            faults.push(format!("Cargo.toml: {line} is not for version {version}"));
        }
    }
    let citation = fs::read_to_string(root.join("CITATION.cff")).context("CITATION.cff")?;
    if !citation.lines().any(|line| line == format!("version: {version}")) {
        faults.push(format!("CITATION.cff is not for version {version}"));
    }
    Ok((version, faults))
}

/// What the changelog says of a version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// There is no heading for it.
    Missing,
    /// The heading has no date yet.
    Undated,
    Dated,
}

pub(crate) fn changelog(text: &str, version: &str) -> Section {
    let heading = text.lines().find_map(|line| {
        let rest = line.strip_prefix("## ")?.strip_prefix(version)?;
        (rest.is_empty() || rest.starts_with(' ')).then_some(rest)
    });
    match heading {
        None => Section::Missing,
        Some(rest) if rest.contains(|c: char| c.is_ascii_digit()) => Section::Dated,
        Some(_) => Section::Undated,
    }
}

/// The dependencies that declare a later Rust than the workspace does.
pub(crate) fn rust_version(metadata: &Metadata) -> Result<(String, Vec<String>)> {
    let own = metadata.packages.iter().filter(|package| package.is_published());
    let declared = own.filter_map(|package| package.rust_version.clone()).next();
    let declared = declared.context("no published crate has a rust-version")?;
    let later = metadata.packages.iter().filter(|package| !package.is_ours()).filter_map(|package| {
        let needs = package.rust_version.as_deref()?;
        (numbers(needs) > numbers(&declared)).then(|| {
            format!("{} {} needs Rust {needs}, later than {declared}", package.name, package.version)
        })
    });
    Ok((declared.clone(), later.collect()))
}

/// A version as numbers, of which missing ones are 0.
fn numbers(version: &str) -> [u64; 3] {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

/// What is wrong with the Dockerfile: sources of `COPY` that do not exist or that .dockerignore leaves out, stages that
/// do not exist, and a Rust other than the declared one.
pub(crate) fn dockerfile(root: &Path, rust: &str) -> Result<Vec<String>> {
    let read = |name: &str| fs::read_to_string(root.join(name)).context(name.to_owned());
    let (text, ignore) = (read("Dockerfile")?, read(".dockerignore")?);
    let kept: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let mut faults = Vec::new();
    let mut stages = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["FROM", _, "AS", stage] => stages.push(*stage),
            ["COPY", from, ..] if from.starts_with("--from=") => {
                let stage = &from["--from=".len()..];
                if !stages.contains(&stage) {
                    faults.push(format!("Dockerfile: there is no stage {stage}"));
                }
            }
            ["COPY", sources @ .., _] => {
                for source in sources {
                    let sent = kept.iter().any(|kept| kept == source);
                    if !sent || !root.join(source).exists() {
                        faults.push(format!("Dockerfile: {source} is missing or left out by .dockerignore"));
                    }
                }
            }
            _ => {}
        }
    }
    if !text.contains(&format!("FROM rust:{rust}-alpine")) {
        faults.push(format!("Dockerfile: the first stage is not of Rust {rust}, the declared version"));
    }
    if stages.is_empty() {
        faults.push("Dockerfile: no stage has a name".to_owned());
    }
    Ok(faults)
}

#[test]
fn a_changelog_has_sections() {
    let text = "# Changelog\n## 0.2.0 (unreleased)\n## 0.1.0 (2026-12-01)\n";
    assert_eq!(changelog(text, "0.2.0"), Section::Undated);
    assert_eq!(changelog(text, "0.1.0"), Section::Dated);
    assert_eq!(changelog(text, "0.1"), Section::Missing);
}

#[test]
fn versions_compare_by_number() {
    assert!(numbers("1.90") > numbers("1.9.5") && numbers("1.90") == numbers("1.90.0"));
}

#[test]
fn keywords_are_those_of_the_registry() {
    assert!(is_keyword("vision-language") && is_keyword("gpt2"));
    assert!(!is_keyword("two words") && !is_keyword("-x") && !is_keyword(&"a".repeat(21)));
}
