//! Checks the invariants of the repository that a program can check: `cargo xtask tidy`, which also runs as a
//! test.
//!
//! Each rule returns all violations, one per line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::crates::{Dependency, dependencies, floor, is_drawn};
use crate::release::{checks, target};

/// The maximum number of lines of a source file.
const LINES: usize = 500;

/// For each `.cu`, its test in `crates/ops/tests`, in the module `gpu`, and its bench in `benches` or the reason
/// why there is none. A kernel that only supports another one has the bench of that one.
const KERNELS: &[(&str, &str, &str)] = &[
    ("adamw", "adamw", "adamw"),
    ("argmax", "argmax", "none: a few microseconds once a token"),
    ("attention_bwd", "attention", "attention"),
    ("attention_bwd_short", "attention", "attention"),
    ("attention_fwd", "attention", "attention"),
    ("attention_sums", "attention_sums", "none: for looking at a model, not for running it"),
    ("contrastive", "contrastive", "none: pretraining of the nano tower alone"),
    ("cross_entropy", "cross_entropy", "cross_entropy"),
    ("elementwise", "elementwise", "none: residuals are in epilogues, casts at the edges"),
    ("fused/layernorm_lora", "layernorm", "rowwise"),
    ("fused/lora_down", "lora", "linear"),
    ("fused/lora_grad", "lora", "linear"),
    ("fused/lora_pack", "lora", "linear"),
    ("gelu", "elementwise", "rowwise"),
    ("gemm_nn", "linear", "linear"),
    ("gemm_nt", "linear", "linear"),
    ("gemm_reduce", "linear", "linear"),
    ("gemm_thin", "linear", "linear"),
    ("gemm_tn", "linear", "linear"),
    ("layernorm", "layernorm", "rowwise"),
    ("patch", "patch_embed", "none: once an image, under 1 % of its encoding"),
    ("pool", "rows", "none: pretraining of the nano tower alone"),
    ("rotary", "rows", "none: under 1 % of a layer"),
    ("rows", "rows", "none: copies"),
    ("tile_embed", "rows", "none: once an image"),
];

/// Checks the repository at a path and returns its violations, one per line.
type Rule = fn(&Path) -> Result<Vec<String>>;

/// Checks all rules.
pub(crate) fn run(_: &[String]) -> Result<()> {
    let root = fs::canonicalize(crate::root()).context("the root of the repository")?;
    let rules: [(&str, Rule); 10] = [
        ("crates depend on lower floors only", floors),
        ("the diagram of the crates is up to date", is_drawn),
        ("source files are short and say what they are", sources),
        ("libraries do not print, and forbid unsafe code where they need none", lints),
        ("kernels are tested and timed", kernels),
        ("links in documents lead somewhere", links),
        ("documents use the terms of the glossary", words),
        ("every forward of an operation has an example", examples),
        ("manifests of published crates are complete", checks::manifests),
        ("the lists of a release's targets agree", target::lists),
    ];
    let mut faults = 0;
    for (rule, check) in rules {
        let found = check(&root)?;
        println!("{:<70} {}", rule, if found.is_empty() { "ok" } else { "BROKEN" });
        found.iter().for_each(|fault| println!("  {fault}"));
        faults += found.len();
    }
    ensure!(faults == 0, "{faults} faults");
    Ok(())
}

/// All files under `dir` with one of the extensions `endings`, except in hidden folders and build folders.
fn files(dir: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            found.extend(files(&path, endings)?);
        } else if endings.iter().any(|ending| path.extension().is_some_and(|e| e == *ending)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

fn floors(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (name, uses) in dependencies(root)? {
        let Some(own) = floor(&name) else {
            faults.push(format!("crates/{name} has no floor; give it one in xtask/src/crates.rs"));
            continue;
        };
        for Dependency { on, .. } in uses {
            if floor(&on).is_none_or(|floor| floor >= own) {
                faults.push(format!("{name} depends on {on}, which is not on a lower floor"));
            }
        }
    }
    Ok(faults)
}

fn sources(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for dir in ["crates", "kernels", "xtask", "tests", "benches", "fuzz", "examples"] {
        for path in files(&root.join(dir), &["rs", "cu", "cuh"])? {
            let text = fs::read_to_string(&path)?;
            let (name, lines) = (shown(root, &path), text.lines().count());
            if lines > LINES {
                faults.push(format!("{name} has {lines} lines, more than {LINES}"));
            }
            let first = text.lines().next().unwrap_or("");
            let rust = path.extension().is_some_and(|ending| ending == "rs");
            // Files of so few lines need no description beyond their name.
            let trivial = lines <= 5;
            if !first.starts_with(if rust { "//!" } else { "//" }) && !trivial {
                faults.push(format!("{name} does not begin by saying what it is"));
            }
        }
    }
    Ok(faults)
}

/// The crates whose libraries contain `unsafe`; in `weights` only one file does.
const UNSAFE: [&str; 5] = ["cpu", "emulator", "kernels", "planted", "weights"];
/// The crates whose libraries print: messages to cargo from a build script, and output of tests.
const PRINTS: [&str; 2] = ["kernel-build", "testkit"];

fn lints(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut check = |name: &str, manifest: PathBuf, library: PathBuf| -> Result<()> {
        if !fs::read_to_string(&manifest)?.contains("[lints]\nworkspace = true") {
            faults.push(format!("{name} does not take the lints of the workspace"));
        }
        let Ok(text) = fs::read_to_string(library) else { return Ok(()) };
        if !UNSAFE.contains(&name) && !text.contains("#![forbid(unsafe_code)]") {
            faults.push(format!("the library {name} does not forbid unsafe code"));
        }
        if !PRINTS.contains(&name) && text.contains("allow(clippy::print") {
            faults.push(format!("the library {name} allows printing"));
        }
        Ok(())
    };
    check("kernels", root.join("Cargo.toml"), root.join("crates/kernels/lib.rs"))?;
    for entry in fs::read_dir(root.join("crates"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.join("Cargo.toml").exists() {
            check(&name, path.join("Cargo.toml"), path.join("src/lib.rs"))?;
        }
    }
    Ok(faults)
}

fn kernels(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let table: BTreeMap<_, _> =
        KERNELS.iter().map(|(kernel, test, bench)| (*kernel, (test, bench))).collect();
    let dir = root.join("kernels");
    let sources = files(&dir, &["cu"])?;
    let ops: String = files(&root.join("crates/ops/src"), &["rs"])?
        .iter()
        .map(fs::read_to_string)
        .collect::<std::io::Result<_>>()?;
    for path in &sources {
        let name = shown(&dir, path).trim_end_matches(".cu").to_owned();
        let Some((test, bench)) = table.get(name.as_str()) else {
            faults
                .push(format!("kernels/{name}.cu has no row in xtask/src/tidy.rs: which test, which bench?"));
            continue;
        };
        let tests = fs::read_to_string(root.join(format!("crates/ops/tests/{test}.rs"))).unwrap_or_default();
        if !tests.contains("\nmod gpu {") {
            faults.push(format!("kernels/{name}.cu: there is no module gpu in crates/ops/tests/{test}.rs"));
        }
        if !bench.starts_with("none: ") && !root.join(format!("benches/{bench}.rs")).exists() {
            faults.push(format!("kernels/{name}.cu: there is no bench benches/{bench}.rs"));
        }
        // Kernel names that macros generate are not found here.
        let text = fs::read_to_string(path)?;
        for line in text.lines() {
            let declared = line.strip_prefix("KERNEL(").or_else(|| line.strip_prefix("GEMM_KERNEL("));
            let Some((kernel, _)) = declared.and_then(|rest| rest.split_once(',')) else { continue };
            if !ops.contains(&format!("\"{kernel}\"")) {
                faults.push(format!("kernels/{name}.cu: no operation launches {kernel}"));
            }
        }
    }
    for (kernel, ..) in KERNELS {
        if !sources.iter().any(|path| shown(&dir, path) == format!("{kernel}.cu")) {
            faults.push(format!("there is no kernels/{kernel}.cu any more"));
        }
    }
    Ok(faults)
}

/// Words that documents must not use, in lower case, each with the field's term.
const WORDS: [(&str, &str); 8] = [
    ("picture", "image"),
    ("whole number", "integer"),
    ("rehears", "dry run"),
    ("those of [`", "a sentence that says what fails and when"),
    ("/// as [`", "a sentence that says what it does"),
    ("skinny", "small M, or GEMV"),
    ("thrown away", "dropped"),
    ("makes again", "recomputes"),
];
/// Names of files and of a fuzz target.
const NAMES: [&str; 4] = ["picture.png", "pictures.crc32", "`picture`", "fuzz run picture"];

/// Documents and documentation comments use the terms of the glossary in CONTRIBUTING.md, by which people search.
fn words(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for path in files(root, &["md", "rs"])? {
        let rust = path.extension().is_some_and(|ending| ending == "rs");
        for (number, line) in fs::read_to_string(&path)?.lines().enumerate() {
            let documentation = ["//!", "///"].iter().any(|start| line.trim_start().starts_with(start));
            if rust && !documentation {
                continue;
            }
            let text = NAMES.iter().fold(line.to_lowercase(), |text, name| text.replace(name, ""));
            for (word, term) in WORDS.iter().filter(|(word, _)| text.contains(word)) {
                let at = format!("{}:{}", shown(root, &path), number + 1);
                faults.push(format!("{at}: write {term} instead of \"{}\"", word.trim()));
            }
        }
    }
    Ok(faults)
}

/// Each `pub fn forward` of `crates/ops` has a code block in its documentation, which is also a test.
fn examples(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for path in files(&root.join("crates/ops/src"), &["rs"])? {
        let mut documentation = String::new();
        for line in fs::read_to_string(&path)?.lines() {
            let line = line.trim_start();
            if line.starts_with("///") {
                documentation.push_str(line);
            } else if !line.starts_with("#[") {
                let forward = line.strip_prefix("pub fn forward").filter(|rest| rest.starts_with(['(', '<']));
                if forward.is_some() && !documentation.contains("```") {
                    faults.push(format!("{}: {line} has no example", shown(root, &path)));
                }
                documentation.clear();
            }
        }
    }
    Ok(faults)
}

fn links(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for path in files(root, &["md"])? {
        let text = fs::read_to_string(&path)?;
        for (at, _) in text.match_indices("](") {
            let Some((target, _)) = text[at + 2..].split_once(')') else { continue };
            if target.contains("://") || target.starts_with("mailto:") || target.contains('\n') {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = match file {
                "" => path.clone(),
                file => path.with_file_name(file),
            };
            let known = to.exists()
                && (anchor.is_empty()
                    || to.is_dir()
                    || headings(&fs::read_to_string(&to)?).contains(&anchor.to_owned()));
            if !known {
                faults.push(format!("{}: the link {target} leads nowhere", shown(root, &path)));
            }
        }
    }
    Ok(faults)
}

/// The anchors of the headings of a Markdown file: lower case, with hyphens for spaces and without
/// punctuation.
fn headings(text: &str) -> Vec<String> {
    let heading =
        |line: &str| line.starts_with('#').then(|| line.trim_start_matches('#').trim().to_lowercase());
    let anchor = |heading: String| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    text.lines().filter_map(heading).map(anchor).collect()
}

#[test]
fn headings_become_anchors() {
    assert_eq!(headings("# A title\ntext\n## What, and `why`?\n"), ["a-title", "what-and-why"]);
}
