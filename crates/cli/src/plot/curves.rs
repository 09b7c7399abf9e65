//! The curves of runs: values of their metrics over steps, samples, tokens or time.

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use pheye::train::{is_run, rows};
use pheye_files::quoted;
use serde_json::Value;

use super::Plot;

/// The quantity of the horizontal axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Axis {
    /// Optimizer steps
    Step,
    /// Images, or texts of data without images
    Samples,
    /// Target tokens
    Tokens,
    /// Time spent in steps
    Seconds,
}

/// One chart.
pub(crate) struct Chart {
    /// The quantity with its unit.
    pub y: String,
    /// The quantity of the horizontal axis with its unit.
    pub x: &'static str,
    pub curves: Vec<Curve>,
}

/// The curve of one run.
pub(crate) struct Curve {
    /// Name of the run.
    pub run: String,
    /// All points.
    pub points: Vec<(f64, f64)>,
    /// Means over neighbouring points.
    pub smooth: Vec<(f64, f64)>,
}

/// Most charts of a plot.
const CHARTS: usize = 16;
/// Most points of a curve that are drawn.
const POINTS: usize = 1500;
/// The metrics that are shown by default, if a run has them.
const DEFAULT: [&str; 2] = ["loss", "accuracy"];

/// The charts of `plot` with a curve for each of `runs`.
pub(crate) fn charts(plot: &Plot, runs: &[PathBuf]) -> anyhow::Result<Vec<Chart>> {
    ensure!(plot.metrics.len() <= CHARTS, "--metric: at most {CHARTS} charts");
    let wanted: Vec<&str> = match plot.metrics.as_slice() {
        [] => DEFAULT.to_vec(),
        some => some.iter().map(String::as_str).collect(),
    };
    let mut read = runs.iter().map(|run| Run::read(run, &wanted)).collect::<anyhow::Result<Vec<_>>>()?;
    name(&mut read, runs);
    let (x, unit) = horizontal(plot.x, &read)?;
    let mut charts = Vec::new();
    for (i, metric) in wanted.iter().enumerate() {
        let curves = read.iter().filter(|run| !run.series[i].is_empty());
        let curves: Vec<_> =
            curves.map(|run| run.curve(i, plot, metric, unit)).collect::<anyhow::Result<_>>()?;
        if !curves.is_empty() {
            charts.push(Chart { y: label(metric), x, curves });
        } else if !plot.metrics.is_empty() {
            let known: BTreeSet<_> = read.iter().flat_map(|run| &run.known).map(String::as_str).collect();
            let known: Vec<_> = known.into_iter().collect();
            bail!("--metric {}: no run has it; there are {}", quoted(metric), quoted(&known.join(", ")));
        }
    }
    ensure!(!charts.is_empty(), "no run has a loss or an accuracy to plot");
    Ok(charts)
}

/// The values of one run.
struct Run {
    name: String,
    path: PathBuf,
    /// For each wanted metric, the steps with their values.
    series: Vec<Vec<(u64, f64)>>,
    /// For each step, the sums of tokens, samples and seconds up to it.
    sums: HashMap<u64, [f64; 3]>,
    timed: bool,
    /// The names of all metrics.
    known: BTreeSet<String>,
}

impl Run {
    fn read(path: &Path, wanted: &[&str]) -> anyhow::Result<Run> {
        let metrics = path.join("metrics.jsonl");
        let shown = path.display();
        match path.metadata() {
            Err(e) if e.kind() == ErrorKind::NotFound => bail!("there is no folder {shown}"),
            Err(e) => bail!("{shown}: {e}"),
            Ok(found) if !found.is_dir() => bail!("{shown} is not the folder of a run"),
            Ok(_) if !is_run(path) => bail!("{shown} is not the folder of a run: it has no metrics.jsonl"),
            Ok(_) if !metrics.exists() => bail!("{shown}: the run has not logged a step yet"),
            Ok(_) => {}
        }
        let mut run = Run {
            name: String::new(),
            path: path.to_owned(),
            series: vec![Vec::new(); wanted.len()],
            sums: HashMap::new(),
            timed: false,
            known: BTreeSet::new(),
        };
        let (mut sums, mut last) = ([0.0; 3], None);
        rows(&metrics, |step, row| {
            run.add(wanted, step, row);
            sums[0] += row["tokens"].as_f64().unwrap_or(0.0);
            run.sums.insert(step, sums);
            last = Some(step);
        })?;
        ensure!(last.is_some(), "{shown}: the run has not logged a step yet");
        let timing = path.join("timing.jsonl");
        run.timed = timing.exists();
        if run.timed {
            rows(&timing, |step, row| {
                sums[1] += row["samples"].as_f64().unwrap_or(0.0);
                sums[2] += row["seconds"].as_f64().unwrap_or(0.0);
                if let Some(at) = run.sums.get_mut(&step) {
                    at[1..].copy_from_slice(&sums[1..]);
                    run.add(wanted, step, &rates(row));
                }
            })?;
        }
        Ok(run)
    }

    /// Adds the values of a line.
    fn add(&mut self, wanted: &[&str], step: u64, row: &Value) {
        for (name, value) in row.as_object().into_iter().flatten().filter(|(name, _)| *name != "step") {
            let Some(value) = value.as_f64() else { continue };
            if !self.known.contains(name) {
                self.known.insert(name.clone());
            }
            // The same name in both files, such as `tokens`, is the same value.
            for (series, _) in self.series.iter_mut().zip(wanted).filter(|(_, wanted)| *wanted == name) {
                if series.last().is_none_or(|(last, _)| *last < step) {
                    series.push((step, value));
                }
            }
        }
    }

    fn curve(&self, metric: usize, plot: &Plot, name: &str, unit: f64) -> anyhow::Result<Curve> {
        let percent = if PERCENT.contains(&name) { 100.0 } else { 1.0 };
        let at = |step: u64| {
            let sums = self.sums.get(&step).copied().unwrap_or_default();
            match plot.x {
                Axis::Step => step as f64,
                Axis::Tokens => sums[0],
                Axis::Samples => sums[1],
                Axis::Seconds => sums[2] / unit,
            }
        };
        let untimed = matches!(plot.x, Axis::Samples | Axis::Seconds) && !self.timed;
        ensure!(
            !untimed,
            "{}: it has no timing.jsonl, which --x samples and --x seconds need",
            self.path.display()
        );
        let points: Vec<_> =
            self.series[metric].iter().map(|(step, value)| (at(*step), percent * value)).collect();
        let smooth = smoothed(&points, plot.smooth.unwrap_or(points.len() / 50 + 1));
        Ok(Curve { run: self.name.clone(), points: thin(&points), smooth: thin(&smooth) })
    }
}

/// The rates that follow from a line of `timing.jsonl`, beside its values.
fn rates(row: &Value) -> Value {
    let mut row = row.clone();
    let seconds = row["seconds"].as_f64().filter(|s| *s > 0.0);
    for (name, part) in
        [("tokens_per_second", "tokens"), ("samples_per_second", "samples"), ("waiting", "waiting_seconds")]
    {
        if let (Some(part), Some(seconds)) = (row[part].as_f64(), seconds) {
            row[name] = (part / seconds).into();
        }
    }
    row
}

/// Names runs by their folders, or by their paths where folders of the same name would be confused.
fn name(read: &mut [Run], runs: &[PathBuf]) {
    let folder = |path: &Path| {
        let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        whole.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
    };
    let folders: Vec<_> = runs.iter().map(|path| folder(path)).collect();
    for (i, run) in read.iter_mut().enumerate() {
        let twice = folders.iter().filter(|name| **name == folders[i]).count() > 1;
        run.name = quoted(&if twice { runs[i].display().to_string() } else { folders[i].clone() });
    }
}

/// The label of the horizontal axis, and the seconds of its unit of time.
fn horizontal(x: Axis, runs: &[Run]) -> anyhow::Result<(&'static str, f64)> {
    let longest = runs.iter().flat_map(|run| run.sums.values()).map(|sums| sums[2]).fold(0.0, f64::max);
    Ok(match x {
        Axis::Step => ("step", 1.0),
        Axis::Samples => ("samples", 1.0),
        Axis::Tokens => ("target tokens", 1.0),
        Axis::Seconds if longest < 300.0 => ("time (s)", 1.0),
        Axis::Seconds if longest < 3.0 * 3600.0 => ("time (min)", 60.0),
        Axis::Seconds => ("time (h)", 3600.0),
    })
}

/// Shares that are shown in percent.
const PERCENT: [&str; 2] = ["accuracy", "waiting"];

/// A metric with its unit.
fn label(metric: &str) -> String {
    let known = match metric {
        "loss" => "loss (nats)",
        "accuracy" => "accuracy (%)",
        "lr" => "learning rate",
        "grad_norm" => "gradient norm",
        "tokens" => "target tokens per step",
        "samples" => "samples per step",
        "seconds" => "time per step (s)",
        "waiting_seconds" => "waiting for data (s)",
        "waiting" => "waiting for data (%)",
        "tokens_per_second" => "tokens/s",
        "samples_per_second" => "samples/s",
        "peak_resident_bytes" => "peak resident memory (bytes)",
        "gpu_bytes" => "GPU memory (bytes)",
        other => return quoted(other),
    };
    known.to_owned()
}

/// The mean of up to `n` points around each point.
fn smoothed(points: &[(f64, f64)], n: usize) -> Vec<(f64, f64)> {
    let reach = n.max(1).min(points.len()) / 2;
    // Sums of all points before each, so that the time does not grow with `n`.
    let mut sums = vec![0.0];
    points.iter().for_each(|p| sums.push(sums[sums.len() - 1] + p.1));
    let mean = |i: usize| {
        let (from, to) = (i.saturating_sub(reach), (i + reach + 1).min(points.len()));
        (points[i].0, (sums[to] - sums[from]) / (to - from) as f64)
    };
    (0..points.len()).map(mean).collect()
}

/// The points, or the lowest and the highest of each group if there are too many.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let mut kept = Vec::new();
    for group in points.chunks(points.len().div_ceil(POINTS / 2)) {
        let (mut low, mut high) = (0, 0);
        for (i, p) in group.iter().enumerate() {
            low = if p.1 < group[low].1 { i } else { low };
            high = if p.1 > group[high].1 { i } else { high };
        }
        kept.push(group[low.min(high)]);
        if low != high {
            kept.push(group[low.max(high)]);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_centred_and_extremes_survive() {
        let points: Vec<_> = (0..5).map(|i| (i as f64, [1.0, 1.0, 4.0, 1.0, 1.0][i])).collect();
        assert_eq!(smoothed(&points, 1), points);
        assert_eq!(smoothed(&points, 3)[1..4], [(1.0, 2.0), (2.0, 2.0), (3.0, 2.0)]);
        let mut many: Vec<_> = (0..100_000).map(|i| (i as f64, 0.0)).collect();
        many[54_321].1 = 9.0;
        let few = thin(&many);
        assert!(few.len() <= POINTS && few.contains(&(54_321.0, 9.0)), "{}", few.len());
    }
}
