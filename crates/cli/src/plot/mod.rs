//! Curves of one or several runs: reads their metrics, and writes one chart per metric as SVG or PNG.

mod chart;
mod curves;

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use pheye::train::rows;
use pheye::weights::atomic_write;

pub(crate) use curves::Axis;

/// What to plot.
pub(crate) struct Plot {
    /// The quantity of the horizontal axis.
    pub x: Axis,
    /// The metrics, one chart each; empty for the loss and, where there is one, the accuracy.
    pub metrics: Vec<String>,
    /// Number of points that each point of a curve averages; by default about a fiftieth of the curve.
    pub smooth: Option<usize>,
}

impl Plot {
    /// Writes the curves of `runs` to `out`, whose ending decides the format.
    pub(crate) fn save(&self, runs: &[PathBuf], out: &Path) -> anyhow::Result<()> {
        let png = match out.extension().and_then(|e| e.to_str()) {
            Some("png") => true,
            Some("svg") => false,
            _ => bail!("{}: the file must end in .svg or .png", out.display()),
        };
        let charts = curves::charts(self, runs)?;
        let faulty = |e| anyhow!("the curves cannot be drawn: {e}");
        let file = match png {
            true => chart::png(&charts).map_err(faulty)?,
            false => chart::svg(&charts).map_err(faulty)?.into_bytes(),
        };
        Ok(atomic_write(out, |to| to.write_all(&file))?)
    }
}

/// Writes `loss.svg` into the folder of a run, unless the run has logged no loss.
pub(crate) fn losses(dir: &Path) -> anyhow::Result<()> {
    let mut any = false;
    rows(&dir.join("metrics.jsonl"), |_, row| any |= row["loss"].is_number())?;
    let plot = Plot { x: Axis::Step, metrics: Vec::new(), smooth: None };
    if any { plot.save(&[dir.to_owned()], &dir.join("loss.svg")) } else { Ok(()) }
}
