//! Draws charts as SVG or PNG, one below the other.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

use super::curves::{Chart, Curve};

/// Size of a chart in pixels of an SVG.
const SIZE: (u32, u32) = (720, 320);
/// Pixels of a PNG for each pixel of an SVG.
const DENSITY: u32 = 2;
/// A PNG is drawn this many times larger and then reduced, because lines are drawn without antialiasing.
const OVERSAMPLING: u32 = 2;
/// The font of PNG text; SVG text has the sans-serif font of the viewer.
const FONT: &[u8] = include_bytes!("../../font/inter-latin.ttf");
/// The colours of the runs, in their order.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x0a, 0x5d, 0xc2),
    RGBColor(0xd1, 0x49, 0x1c),
    RGBColor(0x1a, 0x85, 0x4a),
    RGBColor(0x8e, 0x4c, 0xc2),
    RGBColor(0xc9, 0x8a, 0x00),
    RGBColor(0x00, 0x8b, 0x99),
    RGBColor(0xc2, 0x2f, 0x7e),
    RGBColor(0x59, 0x63, 0x6e),
];
const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);

type Drawn<T> = Result<T, Box<dyn Error>>;

/// The charts as an SVG.
pub(crate) fn svg(charts: &[Chart]) -> Drawn<String> {
    let mut svg = String::new();
    let size = (SIZE.0, SIZE.1 * charts.len() as u32);
    all(SVGBackend::with_string(&mut svg, size).into_drawing_area(), charts, 1)?;
    Ok(svg)
}

/// The charts as a PNG.
pub(crate) fn png(charts: &[Chart]) -> Drawn<Vec<u8>> {
    let scale = DENSITY * OVERSAMPLING;
    let [width, height] = [SIZE.0 * scale, SIZE.1 * charts.len() as u32 * scale];
    let mut pixels = vec![0; (width * height * 3) as usize];
    all(BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area(), charts, scale)?;
    let (width, height, step) = (width as usize, height as usize, OVERSAMPLING as usize);
    let mut small = Vec::with_capacity(pixels.len() / (step * step));
    for (y, x) in (0..height / step).flat_map(|y| (0..width / step).map(move |x| (y, x))) {
        for channel in 0..3 {
            let at = |i: usize| pixels[3 * ((y * step + i / step) * width + x * step + i % step) + channel];
            let sum: u32 = (0..step * step).map(|i| u32::from(at(i))).sum();
            small.push((sum / OVERSAMPLING.pow(2)) as u8);
        }
    }
    Ok(pheye::png(&pheye::image::Rgb8::new(width / step, height / step, small)?)?)
}

fn all<B: DrawingBackend>(root: DrawingArea<B, Shift>, charts: &[Chart], scale: u32) -> Drawn<()>
where
    B::ErrorType: 'static,
{
    register_font("sans-serif", FontStyle::Normal, FONT).map_err(|_| "the font cannot be read")?;
    root.fill(&WHITE)?;
    for (area, chart) in root.split_evenly((charts.len(), 1)).iter().zip(charts) {
        one(area, chart, scale)?;
    }
    Ok(root.present()?)
}

fn one<B: DrawingBackend>(area: &DrawingArea<B, Shift>, chart: &Chart, scale: u32) -> Drawn<()>
where
    B::ErrorType: 'static,
{
    let font = |size: u32| ("sans-serif", size * scale).into_font().color(&INK);
    let (x, y) = ranges(&chart.curves);
    let mut drawn = ChartBuilder::on(area)
        .margin(14 * scale)
        .x_label_area_size(36 * scale)
        .y_label_area_size(60 * scale)
        .build_cartesian_2d(x.clone(), y.clone())?;
    drawn
        .configure_mesh()
        .x_desc(chart.x)
        .y_desc(&chart.y)
        .axis_desc_style(font(13))
        .label_style(font(12))
        .x_label_formatter(&|v| number(*v, x.end - x.start))
        .y_label_formatter(&|v| number(*v, y.end - y.start))
        .x_labels(8)
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(0xe4, 0xe7, 0xeb).stroke_width(scale))
        .axis_style(INK.stroke_width(scale))
        .set_all_tick_mark_size(4 * scale)
        .draw()?;
    // All values first, so that they hide no smoothed curve.
    for (i, curve) in chart.curves.iter().enumerate().filter(|(_, curve)| curve.points != curve.smooth) {
        let pale = COLOURS[i % COLOURS.len()].mix(0.25).stroke_width(scale);
        let points: Vec<_> = curve.points.iter().map(|p| (p.0, p.1.clamp(y.start, y.end))).collect();
        // The lines of a PNG have pointed corners, which reach far beyond values that alternate; an SVG limits them.
        match scale {
            1 => drawn.draw_series(LineSeries::new(points, pale))?,
            _ => drawn.draw_series(points.windows(2).map(|ends| PathElement::new(ends.to_vec(), pale)))?,
        };
    }
    for (i, curve) in chart.curves.iter().enumerate() {
        let style = COLOURS[i % COLOURS.len()].stroke_width(2 * scale);
        // A few values are marked, as those of evaluations are, and a single one would be no line.
        let size = if curve.smooth.len() <= MARKED { 3 * scale } else { 0 };
        let line = LineSeries::new(curve.smooth.iter().copied(), style.filled()).point_size(size);
        let key = move |(x, y): (i32, i32)| PathElement::new(vec![(x, y), (x + 16 * scale as i32, y)], style);
        drawn.draw_series(line)?.label(&curve.run).legend(key);
    }
    let falls = chart.curves[0].smooth.last().is_some_and(|last| last.1 < (y.start + y.end) / 2.0);
    drawn
        .configure_series_labels()
        .position(if falls { SeriesLabelPosition::UpperRight } else { SeriesLabelPosition::LowerRight })
        .margin(10 * scale)
        .legend_area_size(24 * scale)
        .label_font(font(13))
        .background_style(WHITE.mix(0.85))
        .border_style(TRANSPARENT)
        .draw()?;
    Ok(())
}

/// Curves of so few points show each of them.
const MARKED: usize = 40;

/// Share of the single values that the range contains at each end; the few beyond it are drawn at its edge.
const CONTAINED: f64 = 0.98;

/// The ranges of the axes, which contain every smoothed curve and nearly all single values. A range that nearly reaches 0
/// begins there.
fn ranges(curves: &[Curve]) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
    let points = || curves.iter().flat_map(|curve| &curve.smooth).copied();
    let (low, high) = points().fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p.1), h.max(p.1)));
    let mut values: Vec<f64> = curves.iter().flat_map(|curve| &curve.points).map(|p| p.1).collect();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values.get((share * values.len().saturating_sub(1) as f64).round() as usize);
    let low = at(1.0 - CONTAINED).map_or(low, |value| low.min(*value));
    let high = at(CONTAINED).map_or(high, |value| high.max(*value));
    let end = points().map(|p| p.0).fold(0.0, f64::max);
    let end = if end > 0.0 { end } else { 1.0 };
    let low = if low >= 0.0 && low < 0.6 * high { 0.0 } else { low };
    let spread = if high > low { high - low } else { high.abs().max(1e-9) };
    let below = if low == 0.0 { 0.0 } else { 0.08 * spread };
    (0.0..end * 1.02, low - below..high + 0.08 * spread)
}

/// A tick's number for an axis of the length `range`, with as few digits as tell it from its neighbours.
fn number(value: f64, range: f64) -> String {
    let largest = value.abs().max(range);
    let (unit, sign) = match largest {
        l if l >= 2e9 => (1e9, "G"),
        l if l >= 2e6 => (1e6, "M"),
        l if l >= 2e4 => (1e3, "k"),
        l if l < 1e-2 => return small(value, range),
        _ => (1.0, ""),
    };
    let digits = (1.5 - (range / unit).log10()).ceil().clamp(0.0, 6.0) as usize;
    let text = format!("{:.digits$}", value / unit);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    match text {
        "0" | "-0" => "0".to_owned(),
        text => format!("{text}{sign}"),
    }
}

/// A small number in scientific notation, such as 5e-4.
fn small(value: f64, range: f64) -> String {
    if value.abs() < range * 1e-6 {
        "0".to_owned()
    } else {
        format!("{:e}", format!("{value:.1e}").parse().unwrap_or(value))
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn ticks_are_short() {
        for (value, range, text) in [
            (0.0, 5.0, "0"),
            (2.5, 5.0, "2.5"),
            (0.05, 0.3, "0.05"),
            (400.0, 600.0, "400"),
            (15_000.0, 40_000.0, "15k"),
            (2_500_000.0, 4e6, "2.5M"),
            (0.0005, 0.002, "5e-4"),
            (0.0015, 0.002, "1.5e-3"),
            (97.5, 4.0, "97.5"),
            (2.0e10, 4.0e10, "20G"),
        ] {
            assert_eq!(number(value, range), text);
        }
    }
}
