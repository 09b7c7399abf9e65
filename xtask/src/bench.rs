//! Runs the benches and their rivals alternately, and makes one table and one JSON file of the results.
//!
//! Clock frequencies and temperatures drift, so times measured minutes apart are not comparable. In each
//! family ours and the rivals' runs alternate, and the time of a row is the median over the rounds.

mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

const FAMILIES: [&str; 5] = ["linear", "attention", "rowwise", "cross_entropy", "adamw"];

struct Options {
    device: String,
    rounds: usize,
    families: Vec<String>,
    /// The Python interpreter of the rivals, if they are to run.
    python: Option<String>,
    /// The folder that contains `benches/` and the results.
    root: PathBuf,
    /// A folder with the compiled benches, for machines without cargo.
    binaries: Option<PathBuf>,
    /// A regular expression for the names of the rows to measure; all of them without it.
    only: Option<String>,
    /// Whether to write the table to BENCHMARKS.md.
    write: bool,
}

fn options(args: &[String]) -> Result<Options> {
    let mut o = Options {
        device: "cpu".to_owned(),
        rounds: 3,
        families: Vec::new(),
        python: None,
        root: crate::root(),
        binaries: None,
        only: None,
        write: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().cloned().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--device" => o.device = value()?,
            "--rounds" => o.rounds = value()?.parse().context("--rounds")?,
            "--family" => o.families.push(value()?),
            "--peers" => o.python = o.python.or(Some("python3".to_owned())),
            "--python" => o.python = Some(value()?),
            "--root" => o.root = value()?.into(),
            "--binaries" => o.binaries = Some(value()?.into()),
            "--only" => o.only = Some(value()?),
            "--write" => o.write = true,
            other => bail!("no option `{other}`"),
        }
    }
    if let Some(unknown) = o.families.iter().find(|f| !FAMILIES.contains(&f.as_str())) {
        bail!("no family `{unknown}`; there are {}", FAMILIES.join(", "));
    }
    if o.families.is_empty() {
        o.families = FAMILIES.map(str::to_owned).to_vec();
    }
    if !(o.device == "cpu" || o.device.starts_with("cuda")) {
        bail!("--device is cpu or cuda");
    }
    Ok(o)
}

/// Runs the command `bench`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let o = options(args)?;
    let binaries = programs(&o)?;
    let scratch = tempfile::tempdir()?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let (mut lines, mut failed) = (Vec::new(), Vec::new());
    for round in 1..=o.rounds {
        for family in &o.families {
            eprintln!("round {round} of {}: {family}", o.rounds);
            let ours = scratch.path().join(format!("{round}-{family}"));
            let program = binaries.get(family).with_context(|| format!("no bench program `{family}`"))?;
            let mut command = Command::new(program);
            command
                .arg("--bench")
                .args(&o.only)
                .env("PHEYE_BENCH_DEVICE", &o.device)
                .env("PHEYE_BENCH_OUT", &ours);
            // Criterion's comparison with earlier runs is not used, so its folder is temporary too.
            command.env("CRITERION_HOME", scratch.path().join("criterion"));
            step(&mut command, &format!("{family}, ours"), &mut failed);
            for file in fs::read_dir(&ours).into_iter().flatten() {
                read(&file?.path(), &mut lines)?;
            }
            let Some(python) = &o.python else { continue };
            let theirs = scratch.path().join(format!("{round}-{family}.json"));
            let benches = o.root.join("benches");
            let mut command = Command::new(python);
            command.arg(benches.join("peers").join(family).with_extension("py"));
            command.args(["--device", &o.device]).arg("--out").arg(&theirs);
            command.arg("--shapes").arg(benches.join("shapes.json"));
            if let Some(only) = &o.only {
                command.args(["--only", only]);
            }
            step(&mut command, &format!("{family}, rivals"), &mut failed);
            if theirs.exists() {
                read(&theirs, &mut lines)?;
            }
        }
        if lines.is_empty() {
            bail!("nothing was measured; failed: {}", failed.join("; "));
        }
        // After every round, so that an interrupted run keeps its results.
        let mut report = table::report(&lines);
        report["device"] = json!(o.device);
        report["machine"] = json!(machine(&o.device));
        report["date"] = json!(output(&["date", "-u", "+%F"]));
        report["rounds"] = json!(round);
        report["load_before"] = json!(load.split(' ').take(3).collect::<Vec<_>>().join(" "));
        report["failed"] = json!(failed);
        save(&o, &report)?;
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join("; ")) }
}

/// Runs one side of a family. If it fails, its rows are missing, and the other families still run.
fn step(command: &mut Command, name: &str, failed: &mut Vec<String>) {
    let outcome = command.stdin(Stdio::null()).status();
    match outcome {
        Ok(status) if status.success() => {}
        Ok(status) => failed.push(format!("{name} ({status})")),
        Err(e) => failed.push(format!("{name} ({e})")),
    }
}

fn read(file: &Path, lines: &mut Vec<Value>) -> Result<()> {
    let text = fs::read_to_string(file)?;
    for line in text.lines() {
        lines.push(serde_json::from_str(line).with_context(|| file.display().to_string())?);
    }
    Ok(())
}

/// The compiled benches by family; built by cargo unless `--binaries` is given.
fn programs(o: &Options) -> Result<BTreeMap<String, PathBuf>> {
    if let Some(folder) = &o.binaries {
        let folder = folder.canonicalize().with_context(|| folder.display().to_string())?;
        return Ok(FAMILIES.iter().map(|f| (f.to_string(), folder.join(f))).collect());
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["bench", "--package", "pheye-kernels", "--benches", "--no-run", "--message-format=json"]);
    if o.device != "cpu" {
        cargo.args(["--features", "cublaslt"]); // implies `cuda`
    }
    let built = cargo.current_dir(&o.root).stderr(Stdio::inherit()).output()?;
    if !built.status.success() {
        bail!("the benches do not build");
    }
    let messages = String::from_utf8_lossy(&built.stdout).into_owned();
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = |m: Value| {
        let bench = m["target"]["kind"] == json!(["bench"]);
        bench.then(|| Some((m["target"]["name"].as_str()?.to_owned(), m["executable"].as_str()?.into())))?
    };
    Ok(artifacts.filter_map(program).collect())
}

/// The standard output of a command, without leading and trailing white space.
pub(crate) fn output(command: &[&str]) -> String {
    let out = Command::new(command[0]).args(&command[1..]).output();
    out.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

/// The name of the processor or of the GPU.
pub(crate) fn machine(device: &str) -> String {
    if device != "cpu" {
        return output(&["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]);
    }
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|p| p.1));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{} with {}, {threads} threads", name.unwrap_or("unknown processor"), vectors())
}

/// The widest vector instruction set of this processor that the kernels use. It determines the speed more
/// than the processor's name, which may be that of a family only.
pub(crate) fn vectors() -> &'static str {
    const NAMES: [(&str, &str); 3] =
        [("avx512_vnni", "AVX-512 VNNI"), ("avx512f", "AVX-512"), ("avx2", "AVX2")];
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|l| l.starts_with("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|f| f == flag);
    NAMES.into_iter().find(|(flag, _)| has(flag)).map_or("vectors not known", |(_, name)| name)
}

/// Writes the JSON file and prints the table; with `--write`, also writes it to BENCHMARKS.md.
fn save(o: &Options, report: &Value) -> Result<()> {
    let table = table::markdown(report);
    let name = o.device.split(':').next().unwrap_or(&o.device);
    let folder = o.root.join("benches/results");
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{name}-{}.json", report["date"].as_str().unwrap_or("undated")));
    fs::write(&file, serde_json::to_string_pretty(report)? + "\n")?;
    if o.write {
        let page = o.root.join("BENCHMARKS.md");
        let text = fs::read_to_string(&page)?;
        fs::write(&page, table::replace(&text, name, &table)?)?;
    }
    println!("{table}\n{}", file.display());
    Ok(())
}
