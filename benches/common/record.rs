//! The result of a row, as a line of JSON and as printed text.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use pheye_ops::Cx;
use pheye_tensor::DType;
use serde_json::{Value, json};

use super::{Case, Result};

/// The backend of Pheye's own rows.
pub(super) const OURS: &str = "pheye";

/// A rate of arithmetic and of memory traffic.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    /// FLOP/s.
    pub flops: f64,
    /// Bytes/s.
    pub bytes: f64,
}

/// The results of one family, until they are written to a file.
pub(super) struct Records {
    family: &'static str,
    dtype: DType,
    device: String,
    file: PathBuf,
    peers: Vec<Value>,
    rows: Vec<Value>,
}

fn lines(file: &PathBuf) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?)
}

impl Records {
    /// The results of `family` on the device of `cx`.
    pub(super) fn new(family: &'static str, cx: &Cx) -> Result<Records> {
        let folder = std::env::var_os("PHEYE_BENCH_OUT").map_or("target/bench".into(), PathBuf::from);
        let name = cx.device.to_string();
        let file = folder.join(format!("{}.json", name.split(':').next().unwrap_or(&name)));
        let peers = std::env::var_os("PHEYE_BENCH_PEERS").map(|f| lines(&f.into())).transpose()?;
        let peers = peers.unwrap_or_default();
        Ok(Records { family, dtype: cx.dtype(), device: name, file, peers, rows: Vec::new() })
    }

    fn line(&self, op: &str, shape: &str, direction: &str, backend: &str) -> Value {
        json!({ "family": self.family, "op": op, "shape": shape, "dtype": self.dtype.name(), "direction": direction,
                "backend": backend, "device": self.device })
    }

    /// Adds the roofline of the device.
    pub(super) fn roofline(&mut self, rate: Rate) {
        println!("roofline: {:.3} TFLOP/s, {:.1} GB/s\n", rate.flops / 1e12, rate.bytes / 1e9);
        let mut line = self.line("roofline", "", "", OURS);
        line["tflops"] = json!(rate.flops / 1e12);
        line["gbps"] = json!(rate.bytes / 1e9);
        self.rows.push(line);
    }

    /// Adds and prints the times of `backend` for a row: for ours with the ratio to the fastest rival, for
    /// others with the ratio to ours.
    pub(super) fn add(&mut self, case: &Case, backend: &str, times: &mut [Duration], roofline: Rate) {
        times.sort_unstable();
        let us = |t: Duration| t.as_secs_f64() * 1e6;
        let half = times.len() / 2;
        let median = (us(times[half]) + us(times[(times.len() - 1) / 2])) / 2.0;
        let (flops, bytes) = (case.flops as f64, case.bytes as f64);
        let floor = 1e6 * (flops / roofline.flops).max(bytes / roofline.bytes);
        let mut line = self.line(case.op, &case.shape, case.direction, backend);
        let (tflops, gbps) = (flops / median / 1e6, bytes / median / 1e3);
        for (key, value) in [
            ("median_us", json!(median)),
            ("min_us", json!(us(times[0]))),
            ("max_us", json!(us(times[times.len() - 1]))),
            ("runs", json!(times.len())),
            ("flops", json!(case.flops)),
            ("bytes", json!(case.bytes)),
            ("tflops", json!(tflops)),
            ("gbps", json!(gbps)),
            ("roofline_share", json!(floor / median)),
        ] {
            line[key] = value;
        }
        let share = 100.0 * floor / median;
        print!("    {median:.1} us, {tflops:.3} TFLOP/s, {gbps:.1} GB/s, {share:.0} % of the roofline");
        let same = |peer: &&Value| ["op", "shape", "dtype", "direction"].iter().all(|k| peer[*k] == line[*k]);
        let time = |line: &Value| line["median_us"].as_f64();
        let rival = self.peers.iter().filter(same).filter_map(|p| Some((time(p)?, &p["backend"])));
        let ours = self.rows.iter().filter(same).find(|row| row["backend"] == OURS).and_then(time);
        match (rival.min_by(|a, b| a.0.total_cmp(&b.0)), ours) {
            (_, Some(ours)) if backend != OURS => {
                print!(", ours has {:.2} times the speed of {backend}", median / ours)
            }
            (Some((rival, name)), _) if backend == OURS => {
                let name = name.as_str().unwrap_or_default();
                print!(", {:.2} times the speed of {name}", rival / median)
            }
            _ => {}
        }
        println!("\n");
        self.rows.push(line);
    }

    /// Writes the results to the file, where they replace those of an earlier run of this family.
    pub(super) fn write(&self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut all = if self.file.exists() { lines(&self.file)? } else { Vec::new() };
        all.retain(|line| line["family"] != self.family);
        all.extend(self.rows.iter().cloned());
        let text: String = all.iter().map(|line| format!("{line}\n")).collect();
        fs::create_dir_all(self.file.parent().unwrap_or(&self.file))?;
        fs::write(&self.file, text).map_err(|e| format!("{}: {e}", self.file.display()).into())
    }
}
