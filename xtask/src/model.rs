//! Benchmarks the whole model against PyTorch on the CPU: runs `pheye bench` and `benches/peers/model.py`
//! alternately, and makes a table of the stages and a JSON file with every line that either printed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::bench::{machine, output, vectors};

/// The name of a case, the arguments of pheye, and the arguments of PyTorch.
type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

/// The cases. In each round, the two sides of a case run one after the other.
const CASES: &[Case] = &[
    ("x2-672", &["--preset", "x2-672"], &["--preset", "x2-672"]),
    ("x2-672 int8", &["--preset", "x2-672", "--weights", "int8"], &[]),
    ("x4-448", &["--preset", "x4-448"], &["--preset", "x4-448"]),
    ("x4-448 int8", &["--preset", "x4-448", "--weights", "int8"], &[]),
    (
        "x4-448 training",
        &["--preset", "x4-448", "--mode", "train"],
        &["--preset", "x4-448", "--mode", "train"],
    ),
    (
        "x2-672 answer",
        &["--preset", "x2-672", "--new", "50"],
        &["--preset", "x2-672", "--new", "49", "--released"],
    ),
];

/// `[--case NAME]… [--rounds N] [--python P] [--pheye FILE] [--write]`. With 0 rounds it prints the table of
/// today's file.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let (mut rounds, mut python, mut write, mut names, mut pheye) =
        (3, "python3".to_owned(), false, Vec::new(), None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().cloned().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => rounds = value()?.parse().context("--rounds")?,
            "--python" => python = value()?,
            "--case" => names.push(value()?),
            "--pheye" => pheye = Some(value()?),
            "--write" => write = true,
            other => bail!("no option `{other}`"),
        }
    }
    let known = || CASES.iter().map(|c| c.0).collect::<Vec<_>>().join(", ");
    for name in &names {
        ensure!(CASES.iter().any(|c| c.0 == name), "no case `{name}`; there are {}", known());
    }
    let root = crate::root();
    let pheye = match pheye {
        Some(file) => file,
        None => {
            let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
            let built = Command::new(cargo)
                .args(["build", "--release", "-p", "pheye-cli"])
                .current_dir(&root)
                .status()?;
            ensure!(built.success(), "pheye does not build");
            root.join("target/release/pheye").display().to_string()
        }
    };
    let peer = root.join("benches/peers/model.py").display().to_string();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let date = output(&["date", "-u", "+%F"]);
    let file = root.join(format!("benches/results/model-cpu-{date}.json"));
    let run = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    // Results of other cases in today's file are kept.
    let earlier: Option<Value> = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let elsewhere = earlier.as_ref().is_some_and(|r| r["machine"] != json!(machine("cpu")));
    ensure!(!elsewhere, "{} is of another machine: move it away first", file.display());
    let mut lines: Vec<Value> =
        earlier.iter().filter_map(|r| r["lines"].as_array()).flatten().cloned().collect();
    if rounds > 0 {
        lines.retain(|line| line["case"].as_str().is_some_and(|name| !run(name)));
    }
    let fresh = || {
        json!({
            "machine": machine("cpu"),
            "date": date,
            "load_before": load.split(' ').take(3).collect::<Vec<_>>().join(" "),
            "torch": output(&[&python, "-c", "import torch; print(torch.__version__)"]),
        })
    };
    let mut report = match earlier {
        Some(earlier) if rounds == 0 => earlier,
        _ => fresh(),
    };
    for round in 1..=rounds {
        for (name, ours, theirs) in CASES.iter().filter(|c| run(c.0)) {
            eprintln!("round {round} of {rounds}: {name}");
            let mut side = |side: &str, program: &[&str], args: &[&str]| -> Result<()> {
                if args.is_empty() {
                    return Ok(());
                }
                let out = Command::new(program[0])
                    .args(&program[1..])
                    .args(args)
                    .envs(["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"].map(|name| (name, "2")))
                    .stderr(Stdio::inherit())
                    .output()?;
                ensure!(out.status.success(), "{name}, {side}: {}", out.status);
                let mut line: Value =
                    serde_json::from_slice(&out.stdout).with_context(|| format!("{name}, {side}"))?;
                (line["case"], line["side"], line["arguments"]) =
                    (json!(name), json!(side), json!(args.join(" ")));
                lines.push(line);
                Ok(())
            };
            side("pheye", &[&pheye, "bench", "--device", "cpu", "--json"], ours)?;
            side("PyTorch", &[&python, &peer], theirs)?;
        }
        // Written after each round, so that an interrupted run keeps its results.
        report["lines"] = json!(lines);
        fs::write(&file, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    let table = table(&report);
    println!("{table}");
    if write {
        replace(&root.join("BENCHMARKS.md"), &table)?;
    }
    Ok(())
}

/// The median of a figure over the rounds.
fn figure(report: &Value, case: &str, side: &str, of: impl Fn(&Value) -> Option<f64>) -> Option<f64> {
    let lines = report["lines"].as_array()?.iter().filter(|l| l["case"] == case && l["side"] == side);
    let mut values: Vec<f64> = lines.filter_map(of).collect();
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (n > 0).then(|| (values[(n - 1) / 2] + values[n / 2]) / 2.0)
}

/// The number of rounds of the cases: `3`, or `1 to 3` if they differ.
fn rounds_of(report: &Value) -> String {
    let lines = report["lines"].as_array().into_iter().flatten().filter(|l| l["side"] == "pheye");
    let mut counts = std::collections::BTreeMap::new();
    lines.for_each(|l| *counts.entry(l["case"].as_str()).or_insert(0) += 1);
    match (counts.values().min(), counts.values().max()) {
        (Some(least), Some(most)) if least < most => format!("{least} to {most}"),
        (_, most) => most.map_or(0, |n| *n).to_string(),
    }
}

fn sum(line: &Value, stages: &[&str]) -> Option<f64> {
    stages.iter().map(|s| line[s].as_f64()).sum()
}

/// The seconds to an answer of 50 tokens. PyTorch's decoding computes the image's keys and values again for
/// each token, as the released code does.
fn answer(line: &Value) -> Option<f64> {
    Some(sum(line, &["encode", "cross_kv", "prefill"])? + 49.0 * line["decode_token"].as_f64()?)
}

fn table(report: &Value) -> String {
    type Stage = (&'static str, fn(&Value) -> Option<f64>);
    const INFER: [Stage; 4] = [
        ("encode, s", |l| sum(l, &["encode"])),
        ("image keys/values + prefill, s", |l| sum(l, &["cross_kv", "prefill"])),
        ("decode, s a token", |l| sum(l, &["decode_token"])),
        ("peak memory, GB", |l| sum(l, &["peak_rss_gb"])),
    ];
    const TRAIN: [Stage; 2] = [
        ("forward and backward, s", |l| sum(l, &["step"])),
        ("peak memory, GB", |l| sum(l, &["peak_rss_gb"])),
    ];
    const ANSWER: [Stage; 1] = [("50-token answer, s (the released code's way)", answer)];
    // The case of pheye, the case of PyTorch to compare with, the weights, and the stages.
    let rows: [(&str, &str, &str, &[Stage]); 6] = [
        ("x2-672", "x2-672", "bf16", &INFER),
        ("x2-672 int8", "x2-672", "int8", &INFER),
        ("x4-448", "x4-448", "bf16", &INFER),
        ("x4-448 int8", "x4-448", "int8", &INFER),
        ("x4-448 training", "x4-448 training", "bf16 frozen, f32 trained", &TRAIN),
        ("x2-672 answer", "x2-672 answer", "bf16", &ANSWER),
    ];
    let text = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
    let mut out = format!(
        "{}, {}, PyTorch {} in f32, rounds: {}, load before: {}.\n\n| model | our weights | stage | pheye | PyTorch | ratio |\n|---|---|---|---|---|---|\n",
        text("machine"),
        text("date"),
        text("torch"),
        rounds_of(report),
        text("load_before"),
    );
    for (case, peer, weights, stages) in rows {
        for (stage, of) in stages {
            let ours = figure(report, case, "pheye", of);
            let theirs = figure(report, peer, "PyTorch", of);
            let (Some(ours), Some(theirs)) = (ours, theirs) else { continue };
            let preset = peer.split(' ').next().unwrap_or(peer);
            let ratio = match stage.contains("memory") {
                true => format!("{:.2} of it", ours / theirs),
                false => format!("{:.2}x faster", theirs / ours),
            };
            out += &format!("| {preset} | {weights} | {stage} | {ours:.3} | {theirs:.3} | {ratio} |\n");
        }
    }
    out
}

/// Replaces the table between the markers for this kind of machine: `<!-- model cpu AVX2 -->` and
/// `<!-- /model cpu AVX2 -->`.
fn replace(page: &Path, table: &str) -> Result<()> {
    let marks = ["", "/"].map(|slash| format!("<!-- {slash}model cpu {} -->", vectors()));
    let text = fs::read_to_string(page)?;
    let (Some(begin), Some(end)) = (text.find(&marks[0]), text.find(&marks[1])) else {
        bail!("{}: the marks {} and {} are missing", page.display(), marks[0], marks[1]);
    };
    fs::write(page, format!("{}\n{table}{}", &text[..begin + marks[0].len()], &text[end..]))?;
    Ok(())
}
