//! The crates of the workspace by floor, their dependencies, and the diagram of both in docs/crates.svg:
//! `cargo xtask crate-map`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The floors of the crate diagram in ARCHITECTURE.md, from the lowest, with their names. A crate depends only on
/// crates of lower floors.
pub(crate) const FLOORS: &[(&str, &[&str])] = &[
    ("foundations", &["files", "cpu", "emulator", "kernel-build", "nano"]),
    ("GPU, inputs, scores", &["hub", "metrics", "text", "image", "kernels"]),
    ("tensors, scenes", &["scene", "tensor", "planted"]),
    ("operations, files", &["weights", "ops", "testkit"]),
    ("networks", &["gpt2", "vit", "phi", "xattn", "resample"]),
    ("model, data", &["data", "model", "optim"]),
    ("systems beside Pheye", &["baselines"]),
    ("training, evaluation", &["train", "eval"]),
    ("facade", &["pheye"]),
    ("command", &["cli"]),
];

/// Crates that are tests alone and are not drawn.
const NOT_DRAWN: [&str; 1] = ["planted"];

/// The floor of a crate, counted from the lowest.
pub(crate) fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|(_, crates)| crates.contains(&name))
}

/// A dependency of a crate on another one of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) on: String,
    /// Whether only the build script or a feature that is off by default uses it.
    pub(crate) weak: bool,
}

/// The dependencies of each crate, without those of its tests.
pub(crate) fn dependencies(root: &Path) -> Result<BTreeMap<String, Vec<Dependency>>> {
    let mut manifests = vec![("kernels".to_owned(), root.join("Cargo.toml"))];
    for entry in fs::read_dir(root.join("crates"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.join("Cargo.toml").exists() {
            manifests.push((name, path.join("Cargo.toml")));
        }
    }
    let of = |manifest: &Path| -> Result<Vec<Dependency>> {
        let text = fs::read_to_string(manifest)?;
        let (mut section, mut found) = ("", Vec::<Dependency>::new());
        for line in text.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let listed = section == "[dependencies]" || section == "[build-dependencies]";
            let name = line.strip_prefix("pheye").filter(|_| listed);
            let Some(name) = name.and_then(|rest| rest.split(['.', ' ', '=']).next()) else { continue };
            let on = name.strip_prefix('-').unwrap_or("pheye").to_owned();
            let weak = section == "[build-dependencies]" || line.contains("optional = true");
            match found.iter_mut().find(|other| other.on == on) {
                Some(other) => other.weak &= weak,
                None => found.push(Dependency { on, weak }),
            }
        }
        Ok(found)
    };
    manifests.into_iter().map(|(name, manifest)| Ok((name, of(&manifest)?))).collect()
}

/// The path of the diagram.
fn file(root: &Path) -> PathBuf {
    root.join("docs/crates.svg")
}

/// Writes docs/crates.svg.
pub(crate) fn draw(args: &[String]) -> Result<()> {
    if !args.is_empty() {
        bail!("usage: cargo xtask crate-map");
    }
    let file = file(&crate::root());
    fs::write(&file, svg(&dependencies(&crate::root())?)).context(file.display().to_string())
}

/// A fault if docs/crates.svg is not what [`draw`] writes.
pub(crate) fn is_drawn(root: &Path) -> Result<Vec<String>> {
    let drawn = fs::read_to_string(file(root)).unwrap_or_default() == svg(&dependencies(root)?);
    let fault = "docs/crates.svg is not the crates as they are; `cargo xtask crate-map` draws it";
    Ok(if drawn { Vec::new() } else { vec![fault.to_owned()] })
}

const WIDTH: usize = 980;
const ROW: usize = 84;
const BOX: usize = 38;
/// Where the boxes begin, beside the names of the floors.
const LEFT: usize = 170;

/// The place of a crate: its center, and its width.
struct Place {
    x: usize,
    y: usize,
    width: usize,
}

fn places() -> BTreeMap<&'static str, Place> {
    let mut places = BTreeMap::new();
    for (floor, (_, crates)) in FLOORS.iter().enumerate() {
        let drawn: Vec<_> = crates.iter().filter(|name| !NOT_DRAWN.contains(name)).collect();
        let widths: Vec<usize> = drawn.iter().map(|name| 30 + 9 * name.len()).collect();
        let gap = (WIDTH - LEFT - widths.iter().sum::<usize>()) / (drawn.len() + 1);
        let mut x = LEFT + gap;
        for (name, width) in drawn.into_iter().zip(widths) {
            let y = ROW * (FLOORS.len() - 1 - floor) + ROW / 2;
            places.insert(*name, Place { x: x + width / 2, y, width });
            x += width + gap;
        }
    }
    places
}

/// The diagram. Dependencies that follow from others are left out.
fn svg(all: &BTreeMap<String, Vec<Dependency>>) -> String {
    let places = places();
    let height = ROW * FLOORS.len();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"Helvetica, Arial, sans-serif\">\n\
         <title>The crates of the workspace by floor; each arrow points to a crate that is used</title>\n\
         <defs><marker id=\"a\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
         orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#4a5568\"/></marker></defs>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (floor, (label, _)) in FLOORS.iter().enumerate() {
        let top = ROW * (FLOORS.len() - 1 - floor);
        if floor % 2 == 0 {
            let _ = writeln!(out, "<rect y=\"{top}\" width=\"{WIDTH}\" height=\"{ROW}\" fill=\"#f4f6f8\"/>");
        }
        let y = top + ROW / 2 + 5;
        let _ = writeln!(out, "<text x=\"14\" y=\"{y}\" font-size=\"14\" fill=\"#4a5568\">{label}</text>");
    }
    for (name, uses) in all {
        let Some(from) = places.get(name.as_str()) else { continue };
        let follows = |on: &str| uses.iter().any(|other| other.on != on && reaches(all, &other.on, on));
        for Dependency { on, weak } in uses.iter().filter(|d| !follows(&d.on)) {
            let Some(to) = places.get(on.as_str()) else { continue };
            let (y1, y2) = (from.y + BOX / 2, to.y - BOX / 2);
            // Vertical at both ends.
            let bend = (y2 - y1) / 2;
            let dashes = if *weak { " stroke-dasharray=\"5 4\"" } else { "" };
            let _ = writeln!(
                out,
                "<path d=\"M{} {y1}C{} {} {} {} {} {y2}\" fill=\"none\" stroke=\"#4a5568\" stroke-width=\"1.2\"{dashes} \
                 marker-end=\"url(#a)\"/>",
                from.x,
                from.x,
                y1 + bend,
                to.x,
                y2 - bend,
                to.x,
            );
        }
    }
    for (name, Place { x, y, width }) in &places {
        let _ = writeln!(
            out,
            "<rect x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{BOX}\" rx=\"5\" fill=\"#ffffff\" stroke=\"#2b6cb0\" \
             stroke-width=\"1.5\"/>\n\
             <text x=\"{x}\" y=\"{}\" font-size=\"15\" text-anchor=\"middle\" fill=\"#1a202c\">{name}</text>",
            x - width / 2,
            y - BOX / 2,
            y + 5,
        );
    }
    out + "</svg>\n"
}

/// Whether crate `from` uses crate `to`, directly or through others.
fn reaches(all: &BTreeMap<String, Vec<Dependency>>, from: &str, to: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(name) = next.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            next.extend(all.get(name).into_iter().flatten().map(|d| d.on.as_str()));
        }
    }
    false
}
