//! Draws the loss of a run as an SVG.

use std::path::Path;

use anyhow::{Context, anyhow};
use pheye::weights::atomic_write;
use plotters::prelude::*;

/// Writes `loss.svg` beside the `metrics.jsonl` of the run in `dir`.
pub(crate) fn losses(dir: &Path) -> anyhow::Result<()> {
    let path = dir.join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let point = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((value.get("step")?.as_f64()?, value.get("loss")?.as_f64()?))
    };
    let points: Vec<(f64, f64)> = text.lines().filter_map(point).collect();
    let Some(&(last, _)) = points.last() else { return Ok(()) };
    // The mean over about a hundredth of the run on either side, because the loss of single batches is noisy.
    let reach = points.len() / 100;
    let smooth = |i: usize| {
        let near = &points[i.saturating_sub(reach)..(i + reach + 1).min(points.len())];
        (points[i].0, near.iter().map(|p| p.1).sum::<f64>() / near.len() as f64)
    };
    let smoothed: Vec<_> = (0..points.len()).map(smooth).collect();
    let highest = smoothed.iter().map(|p| p.1).fold(f64::MIN_POSITIVE, f64::max);

    let svg =
        draw(&points, &smoothed, last, highest).map_err(|e| anyhow!("the losses cannot be drawn: {e}"))?;
    Ok(atomic_write(dir.join("loss.svg"), |file| file.write_all(svg.as_bytes()))?)
}

/// The losses and, above them, the smoothed losses as an SVG.
fn draw(
    points: &[(f64, f64)],
    smoothed: &[(f64, f64)],
    last: f64,
    highest: f64,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (720, 360)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("mean loss per token", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..last.max(1.0), 0.0..highest * 1.05)?;
    chart.configure_mesh().x_desc("step").light_line_style(WHITE).draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), RGBColor(0xc8, 0xd6, 0xe5)))?;
    let blue = RGBColor(0x0a, 0x5d, 0xc2).stroke_width(2);
    chart.draw_series(LineSeries::new(smoothed.iter().copied(), blue))?;
    root.present()?;
    drop(chart);
    drop(root);
    Ok(svg)
}
