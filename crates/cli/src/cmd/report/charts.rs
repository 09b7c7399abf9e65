//! The charts of a report, as SVG. Colors are variables of the page with a default, so that a chart follows the page's
//! theme and also stands alone.

use std::fmt::Write;

use pheye::metrics::relative_size::Tertile;

use super::evaluation::Group;
use crate::show::escape;

/// A chart with its caption.
pub(crate) struct Figure {
    /// The index of its benchmark.
    pub(crate) group: usize,
    /// Name of its file beside the Markdown.
    pub(crate) file: String,
    pub(crate) caption: String,
    pub(crate) svg: String,
}

/// Values with a name: one line or one color of bars.
struct Series {
    name: String,
    values: Vec<f64>,
}

/// All charts of the benchmarks.
pub(crate) fn all(groups: &[Group]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (i, group) in groups.iter().enumerate() {
        let bars: Vec<Series> = group
            .evaluations
            .iter()
            .filter_map(|e| Some(Series { name: e.name.clone(), values: e.by_size()?.to_vec() }))
            .collect();
        if !bars.is_empty() {
            figures.push(Figure {
                group: i,
                file: format!("details-{}.svg", i + 1),
                caption:
                    "Accuracy by the size of what the question asks about, in tertiles (section 3.3 and \
                          Table 2 of the paper)."
                        .to_owned(),
                svg: bar_chart(
                    "accuracy in %",
                    &Tertile::ALL.map(|size| format!("{} details", size.name())),
                    &bars,
                ),
            });
        }
        for (j, evaluation) in group.evaluations.iter().enumerate() {
            let Some((all, sizes)) = evaluation.attention() else { continue };
            // One view has all of the attention.
            if all.iter().all(|share| *share > 0.9999) {
                continue;
            }
            let of = |name: &str, values: Vec<f64>| Series { name: name.to_owned(), values };
            let percent = |share: f64| 100.0 * share;
            let mut lines = vec![of("all questions", all.into_iter().map(percent).collect())];
            if !sizes.is_empty() {
                lines = (0..3)
                    .map(|size| {
                        of(
                            Tertile::ALL[size].name(),
                            sizes.iter().map(|block| percent(block[size])).collect(),
                        )
                    })
                    .collect();
            }
            figures.push(Figure {
                group: i,
                file: format!("attention-{}-{}.svg", i + 1, j + 1),
                caption: format!(
                    "{}: share of the cross-attention on the global image in each block, averaged over heads and \
                     tokens of the answers, by the size of the detail (Appendix C and Figure 4 of the paper).",
                    evaluation.name
                ),
                svg: line_chart("attention on the global image in %", "cross-attention block", &lines),
            });
        }
    }
    figures
}

/// Width and height of a chart, and its margins: left, top, right, bottom.
const SIZE: (f64, f64) = (640.0, 300.0);
const MARGIN: (f64, f64, f64, f64) = (56.0, 44.0, 12.0, 44.0);
/// Colors that can be told apart in both themes and with color vision deficiencies (after Okabe and Ito).
const COLORS: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999933"];

/// The frame of a chart from 0 to `most`, with ticks, the title of the vertical axis and the legend.
fn frame(title: &str, most: f64, series: &[Series]) -> (String, impl Fn(f64) -> f64 + use<>) {
    let (width, height) = SIZE;
    let (left, top, right, bottom) = MARGIN;
    let y = move |value: f64| height - bottom - value / most * (height - top - bottom);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"var(--ground, #ffffff)\"/>\n\
         <text x=\"{left}\" y=\"{}\" fill=\"var(--faint, #59636e)\">{}</text>\n",
        top - 10.0,
        escape(title)
    );
    let step = tick(most);
    let mut value = 0.0;
    while value <= most * 1.0001 {
        let at = y(value);
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"var(--line, #d1d9e0)\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"var(--faint, #59636e)\">{value}</text>",
            width - right,
            left - 6.0,
            at + 4.0,
        );
        value += step;
    }
    let mut x = left;
    for (i, series) in series.iter().enumerate() {
        let _ = writeln!(
            out,
            "<rect x=\"{x:.0}\" y=\"8\" width=\"12\" height=\"12\" fill=\"{}\"/>\
             <text x=\"{:.0}\" y=\"18\" fill=\"var(--text, #1f2328)\">{}</text>",
            COLORS[i % COLORS.len()],
            x + 17.0,
            escape(&series.name)
        );
        x += 34.0 + 7.0 * series.name.chars().count() as f64;
    }
    (out, y)
}

/// A round step between ticks: 1, 2 or 5 times a power of ten, with about five ticks.
fn tick(most: f64) -> f64 {
    let raw = most / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= raw).unwrap_or(raw)
}

/// The end of an axis from 0 that covers `values`: a multiple of the step between its ticks.
fn limit(series: &[Series]) -> f64 {
    let most = series.iter().flat_map(|series| &series.values).copied().fold(1e-9, f64::max);
    let step = tick(most);
    (most / step).ceil() * step
}

fn bar_chart(title: &str, groups: &[String], series: &[Series]) -> String {
    let (width, height) = SIZE;
    let (left, _, right, bottom) = MARGIN;
    let (mut out, y) = frame(title, limit(series), series);
    let group = (width - left - right) / groups.len() as f64;
    let bar = 0.76 * group / series.len() as f64;
    for (g, name) in groups.iter().enumerate() {
        let start = left + group * (g as f64 + 0.12);
        for (s, series) in series.iter().enumerate() {
            let (value, x) = (series.values[g], start + bar * s as f64);
            let _ = writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"><title>{}: \
                 {value:.2}</title></rect>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\" fill=\"var(--text, \
                 #1f2328)\">{value:.1}</text>",
                y(value),
                (bar - 2.0).max(1.0),
                height - bottom - y(value),
                COLORS[s % COLORS.len()],
                escape(&series.name),
                x + bar / 2.0 - 1.0,
                y(value) - 4.0,
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"var(--text, #1f2328)\">{}</text>",
            left + group * (g as f64 + 0.5),
            height - bottom + 18.0,
            escape(name)
        );
    }
    out + "</svg>\n"
}

fn line_chart(title: &str, horizontal: &str, series: &[Series]) -> String {
    let (width, height) = SIZE;
    let (left, _, right, bottom) = MARGIN;
    let (mut out, y) = frame(title, limit(series), series);
    let points = series.iter().map(|series| series.values.len()).max().unwrap_or(0);
    let x = |i: usize| left + (width - left - right) * (i as f64 + 0.5) / points.max(1) as f64;
    for (s, series) in series.iter().enumerate() {
        let color = COLORS[s % COLORS.len()];
        let path: Vec<String> =
            series.values.iter().enumerate().map(|(i, v)| format!("{:.1},{:.1}", x(i), y(*v))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (i, value) in series.values.iter().enumerate() {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{color}\"><title>{}, block {}: {value:.2} \
                 %</title></circle>",
                x(i),
                y(*value),
                escape(&series.name),
                i + 1
            );
        }
    }
    for i in 0..points {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"var(--text, #1f2328)\">{}</text>",
            x(i),
            height - bottom + 17.0,
            i + 1
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"var(--faint, #59636e)\">{}</text>",
        f64::midpoint(left, width - right),
        height - 8.0,
        escape(horizontal)
    );
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_ticks() {
        let of = |values: &[f64]| limit(&[Series { name: String::new(), values: values.to_vec() }]);
        assert_eq!((of(&[97.3]), of(&[43.0]), of(&[7.1])), (100.0, 50.0, 8.0));
        assert_eq!((tick(100.0), tick(50.0), tick(0.9)), (20.0, 10.0, 0.2));
    }
}
