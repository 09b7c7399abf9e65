//! The licences of all dependencies, against the list in deny.toml: `cargo xtask licences`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};

use super::metadata::{self, Metadata};

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

/// Prints how many dependencies have which licence, and fails if one has none that is allowed.
pub(crate) fn run(args: &[String]) -> Result<()> {
    ensure!(args.is_empty(), "usage: cargo xtask licences");
    let root = fs::canonicalize(crate::root()).context("the root of the repository")?;
    let metadata = metadata::everything(&root)?;
    let faults = check(&root, &metadata)?;
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    if !faults.is_empty() {
        bail!("{} licences that deny.toml does not allow, or entries that nothing needs", faults.len());
    }
    println!("the licences of {} dependencies are allowed by deny.toml", foreign(&metadata));
    Ok(())
}

/// The number of crates from a registry.
pub(crate) fn foreign(metadata: &Metadata) -> usize {
    metadata.packages.iter().filter(|package| !package.is_ours()).count()
}

/// One line for each dependency without an allowed licence, and for each allowed licence that no dependency needs.
pub(crate) fn check(root: &Path, metadata: &Metadata) -> Result<Vec<String>> {
    let text = fs::read_to_string(root.join("deny.toml")).context("deny.toml")?;
    let deny: Deny = toml::from_str(&text).context("deny.toml")?;
    let parse = |name: &String| Licensee::parse(name).with_context(|| format!("deny.toml: licence {name}"));
    let allowed: Vec<Licensee> = deny.licenses.allow.iter().map(parse).collect::<Result<_>>()?;
    let mut needed = vec![false; allowed.len()];
    let mut faults = Vec::new();
    for package in metadata.packages.iter().filter(|package| !package.is_ours()) {
        let Some(licence) = &package.license else {
            faults.push(format!("{} {} states no licence", package.name, package.version));
            continue;
        };
        match allows(&allowed, licence, &mut needed) {
            Ok(true) => {}
            Ok(false) => faults.push(format!("{} {} is {licence}", package.name, package.version)),
            Err(error) => faults.push(format!("{} {}: {error:#}", package.name, package.version)),
        }
    }
    let unneeded = deny.licenses.allow.iter().zip(&needed).filter(|(_, needed)| !**needed);
    faults.extend(unneeded.map(|(name, _)| format!("deny.toml allows {name}, which no dependency has")));
    Ok(faults)
}

/// Whether allowed licences satisfy an expression, and marks those that occur in it.
fn allows(allowed: &[Licensee], licence: &str, needed: &mut [bool]) -> Result<bool> {
    // Older crates write `MIT/Apache-2.0`.
    let expression = Expression::parse_mode(licence, ParseMode::LAX)
        .map_err(|error| anyhow::anyhow!("the licence {licence} is not understood: {}", error.reason))?;
    Ok(expression.evaluate(|required: &LicenseReq| {
        let found = allowed.iter().position(|licensee| licensee.satisfies(required));
        if let Some(found) = found {
            needed[found] = true;
        }
        found.is_some()
    }))
}

#[test]
fn expressions_are_evaluated() {
    let allowed: Vec<Licensee> = ["MIT", "ISC"].iter().map(|name| Licensee::parse(name).unwrap()).collect();
    let allows = |licence| allows(&allowed, licence, &mut [false; 2]);
    assert!(
        allows("MIT").unwrap() && allows("GPL-3.0-only OR MIT").unwrap() && allows("GPL-3.0/MIT").unwrap()
    );
    assert!(allows("MIT AND ISC").unwrap());
    assert!(!allows("MIT AND GPL-3.0-only").unwrap() && !allows("Apache-2.0").unwrap());
    assert!(allows("My own licence").is_err());
}
