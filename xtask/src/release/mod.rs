//! `cargo xtask release`: whether the repository is ready for a release, and a dry run of everything that this
//! machine can build. The release itself is made by `.github/workflows/release.yml`, from a tag.

pub(crate) mod archive;
pub(crate) mod checks;
mod install;
pub(crate) mod licences;
mod metadata;
mod package;
pub(crate) mod target;
mod third_party;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use metadata::Metadata;

/// The size of the base image of the Dockerfile, distroless/static with certificates and time zones, rounded up.
const BASE_IMAGE: u64 = 4 << 20;
/// The most that the image may take.
const IMAGE: u64 = 100 << 20;

/// What became of one part of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// To be filled in before a tag.
    Open,
    /// This machine cannot, or was asked not to.
    NotHere,
    Failed,
}

/// The rows of the table, printed as they come.
#[derive(Default)]
struct Report {
    rows: Vec<Outcome>,
}

impl Report {
    fn row(&mut self, what: &str, outcome: Outcome, detail: &str) {
        let word = match outcome {
            Outcome::Done => "done",
            Outcome::Open => "not set",
            Outcome::NotHere => "not here",
            Outcome::Failed => "FAILED",
        };
        println!("{what:<38} {word:<9} {detail}");
        self.rows.push(outcome);
    }

    /// A row of a check, with its faults below it.
    fn check(&mut self, what: &str, faults: &[String], detail: &str) {
        let outcome = if faults.is_empty() { Outcome::Done } else { Outcome::Failed };
        self.row(what, outcome, detail);
        faults.iter().for_each(|fault| println!("    {fault}"));
    }

    /// A row of something that returned an error or what it did.
    fn result(&mut self, what: &str, result: Result<String>) {
        match result {
            Ok(detail) => self.row(what, Outcome::Done, &detail),
            Err(error) => self.row(what, Outcome::Failed, &format!("{error:#}")),
        }
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.rows.iter().filter(|row| **row == outcome).count()
    }
}

/// The options of the command.
#[derive(Default)]
struct Options {
    dry_run: bool,
    skip_build: bool,
    verify: bool,
    tag: Option<String>,
}

/// `--dry-run [--skip-build] [--verify]` or `--tag TAG [--skip-build]`. With a tag, nothing may be left to fill in.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut options = Options::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--dry-run" => options.dry_run = true,
            "--skip-build" => options.skip_build = true,
            "--verify" => options.verify = true,
            "--tag" => options.tag = Some(args.next().context("a tag after --tag")?.clone()),
            _ => bail!("no option `{arg}`; there are --dry-run, --tag, --skip-build and --verify"),
        }
    }
    if !options.dry_run && options.tag.is_none() {
        bail!("a release is made by the workflow, from a tag (CONTRIBUTING.md); `--dry-run` tries it here");
    }
    let root = fs::canonicalize(crate::root()).context("the root of the repository")?;
    let metadata = metadata::everything(&root)?;
    let mut report = Report::default();
    check(&root, &metadata, &options, &mut report)?;
    archives(&root, &metadata, &options, &mut report)?;
    docker(&root, &metadata, &options, &mut report)?;
    let (failed, open) = (report.count(Outcome::Failed), report.count(Outcome::Open));
    println!(
        "\n{} done, {open} not set, {} not here, {failed} failed",
        report.count(Outcome::Done),
        report.count(Outcome::NotHere)
    );
    ensure!(failed == 0, "{failed} parts of the release failed");
    ensure!(options.tag.is_none() || open == 0, "{open} items are not set, which a tag requires");
    Ok(())
}

/// The checks that build nothing.
fn check(root: &Path, metadata: &Metadata, options: &Options, report: &mut Report) -> Result<()> {
    let (version, faults) = checks::versions(root, metadata)?;
    report.check("versions agree", &faults, &version);
    if let Some(tag) = &options.tag {
        let agrees = *tag == format!("v{version}");
        report.row("the tag", if agrees { Outcome::Done } else { Outcome::Failed }, tag);
    }
    let changelog = fs::read_to_string(root.join("CHANGELOG.md")).context("CHANGELOG.md")?;
    let (outcome, detail) = match checks::changelog(&changelog, &version) {
        checks::Section::Missing => (Outcome::Failed, "has no section of this version"),
        checks::Section::Undated => (Outcome::Open, "the section of this version has no date"),
        checks::Section::Dated => (Outcome::Done, "the section of this version has a date"),
    };
    report.row("CHANGELOG.md", outcome, detail);
    let published = || metadata.packages.iter().filter(|package| package.is_published());
    let address = published().find_map(|package| package.repository.clone()).unwrap_or_default();
    if address.is_empty() {
        report.row(
            "address of the repository",
            Outcome::Open,
            "`repository` of [workspace.package] in Cargo.toml",
        );
    } else {
        report.row("address of the repository", Outcome::Done, &address);
    }
    report.check("manifests", &checks::manifests(root)?, &format!("{} crates", published().count()));
    let licences = licences::check(root, metadata)?;
    report.check("licences", &licences, &format!("{} dependencies", licences::foreign(metadata)));
    let (rust, faults) = checks::rust_version(metadata)?;
    report.check("Rust that dependencies declare", &faults, &format!("none later than {rust}"));
    report.check("lists of targets", &target::lists(root)?, "release.yml and deny.toml have all of them");
    let packed = package::pack(root, metadata, options.verify);
    let what = if options.verify { "packages, built outside" } else { "packages, not built" };
    match packed {
        Err(error) => report.row(what, Outcome::Failed, &format!("{error:#}")),
        Ok(packed) => {
            let (name, largest) = &packed.largest;
            let detail =
                format!("{}, {}; the largest, {name}, {}", packed.count, size(packed.bytes), size(*largest));
            report.check(what, &packed.faults, &detail);
        }
    }
    Ok(())
}

/// Builds and packs what this machine can, with checksums, and installs what runs here.
fn archives(root: &Path, metadata: &Metadata, options: &Options, report: &mut Report) -> Result<()> {
    let (host, out) = (target::host()?, out(metadata));
    let mut packed = Vec::new();
    for target in target::TARGETS {
        let what = format!("archive {target}");
        if options.skip_build {
            report.row(&what, Outcome::NotHere, "--skip-build");
        } else if let Some(why) = target::obstacle(target, &host) {
            report.row(&what, Outcome::NotHere, &format!("{why}; the workflow builds it"));
        } else {
            let made =
                archive::build(root, target).and_then(|()| archive::pack(root, metadata, target, &out));
            let described = made.map(|archive| {
                let detail = format!(
                    "{}, the program {}, {} crates in THIRD_PARTY.md",
                    size(archive.bytes),
                    size(archive.program),
                    archive.crates
                );
                packed.push((target, archive.file));
                detail
            });
            report.result(&what, described);
        }
    }
    if packed.is_empty() {
        return Ok(());
    }
    let files: Vec<&PathBuf> = packed.iter().map(|(_, file)| file).collect();
    report.result("SHA256SUMS", archive::checksums(&out, &files).map(|_| out.display().to_string()));
    // A program for this processor runs here, with this C library or with none.
    let processor = host.split('-').next().unwrap_or_default();
    let runs = |target: &str| target == host || target == format!("{processor}-unknown-linux-musl");
    for (target, file) in packed.iter().filter(|(target, _)| runs(target)) {
        report.result(&format!("install.sh, {target}"), install::run(root, &out, target));
        report.check(
            "install.sh refuses",
            &install::refuses(root, file, target)?,
            "what is damaged or not listed",
        );
    }
    if env::var("PHEYE_CUDA").is_ok_and(|value| value == "off") {
        report.row("kernels in the program", Outcome::NotHere, "PHEYE_CUDA=off; the workflow installs nvcc");
    }
    Ok(())
}

/// Where the dry run leaves its archives.
fn out(metadata: &Metadata) -> PathBuf {
    metadata.target_directory.join("release-dry-run")
}

/// Checks the Dockerfile, and builds it where docker can.
fn docker(root: &Path, metadata: &Metadata, options: &Options, report: &mut Report) -> Result<()> {
    let (rust, _) = checks::rust_version(metadata)?;
    report.check("Dockerfile", &checks::dockerfile(root, &rust)?, "stages, sources, version of Rust");
    let musl = target::built(metadata, "x86_64-unknown-linux-musl");
    let docker = |args: &[&str]| Command::new("docker").args(args).current_dir(root).output();
    let estimate = match fs::metadata(&musl) {
        Ok(program) => {
            format!("about {} (program, base)", size(program.len() + BASE_IMAGE))
        }
        Err(_) => "unknown size (no musl program)".to_owned(),
    };
    let why = match docker(&["info"]) {
        Err(_) => "docker is not installed",
        Ok(ran) if !ran.status.success() => "no docker daemon runs",
        Ok(_) if options.skip_build => "--skip-build",
        Ok(_) => {
            let ran = docker(&["build", "--quiet", "--tag", "pheye:dry-run", "."]).context("docker build")?;
            if !ran.status.success() {
                report.row("image", Outcome::Failed, String::from_utf8_lossy(&ran.stderr).trim());
                return Ok(());
            }
            let ran = docker(&["image", "inspect", "--format", "{{.Size}}", "pheye:dry-run"])?;
            let bytes =
                String::from_utf8_lossy(&ran.stdout).trim().parse::<u64>().context("docker image inspect")?;
            let outcome = if bytes < IMAGE { Outcome::Done } else { Outcome::Failed };
            report.row("image", outcome, &format!("{} of at most {}", size(bytes), size(IMAGE)));
            return Ok(());
        }
    };
    report.row("image", Outcome::NotHere, &format!("{why}; {estimate}"));
    Ok(())
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    if bytes < 1 << 20 {
        format!("{} kB", bytes.div_ceil(1000))
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}

#[test]
fn options_are_checked() {
    let run = |args: &[&str]| run(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
    assert!(run(&[]).unwrap_err().to_string().contains("--dry-run"));
    assert!(run(&["--tag"]).unwrap_err().to_string().contains("a tag after"));
    assert!(run(&["--now"]).unwrap_err().to_string().contains("no option `--now`"));
}
