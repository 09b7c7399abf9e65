//! The tables of a report, for the page and for Markdown.

use pheye::metrics::relative_size::Tertile;

use super::evaluation::Group;
use super::paper;

/// A table with its caption.
pub(crate) struct Table {
    pub(crate) caption: String,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// The tables of a benchmark.
pub(crate) fn all(group: &Group) -> Vec<Table> {
    [scores(group), details(group)].into_iter().flatten().collect()
}

/// The scores of each evaluation, then what the authors publish.
fn scores(group: &Group) -> Option<Table> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in group.evaluations.iter().flat_map(|evaluation| evaluation.scores()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return None;
    }
    let head =
        ["model".to_owned(), "questions".to_owned()].into_iter().chain(names.iter().cloned()).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for evaluation in &group.evaluations {
        let scores = evaluation.scores();
        let of = |name: &String| scores.iter().find(|(have, _)| have == name).map(|(_, score)| *score);
        let mut row = vec![evaluation.name.clone(), evaluation.size()];
        row.extend(names.iter().map(|name| of(name).map_or("–".to_owned(), |score| format!("{score:.2}"))));
        rows.push(row);
    }
    let benchmark = group.title.split(", ").next().unwrap_or_default();
    for published in &paper::ROWS {
        let Some((score, value)) = published.score(benchmark) else { continue };
        let model = format!(
            "{}, {} px, {} trained parameters (published)",
            published.model, published.resolution, published.trained
        );
        let mut row = vec![model, "all".to_owned()];
        row.extend(
            names.iter().map(|name| if name == score { format!("{value:.1}") } else { "–".to_owned() }),
        );
        rows.push(row);
    }
    let caption = "Accuracies in percent; scores of captions times 100.".to_owned();
    Some(Table { caption, head, rows })
}

/// Accuracy by the size of details, and the relative change from the first evaluation, as in the paper's Table 2.
fn details(group: &Group) -> Option<Table> {
    let mut first = None;
    let mut rows = Vec::new();
    for evaluation in &group.evaluations {
        let Some(accuracy) = evaluation.by_size() else { continue };
        let base = *first.get_or_insert(accuracy);
        let mut row = vec![evaluation.name.clone()];
        row.extend(accuracy.iter().map(|value| format!("{value:.2}")));
        row.extend(accuracy.iter().zip(base).map(|(value, base)| match base > 0.0 {
            true => format!("{:+.1} %", 100.0 * (value / base - 1.0)),
            false => "–".to_owned(),
        }));
        let left_out = evaluation.report["by_size"]["left_out"].as_u64().unwrap_or_default();
        row.push(left_out.to_string());
        rows.push(row);
    }
    let head = ["model".to_owned()]
        .into_iter()
        .chain(Tertile::ALL.map(|size| format!("{}, %", size.name())))
        .chain(Tertile::ALL.map(|size| format!("{}, change", size.name())))
        .chain(["without a size".to_owned()]);
    let caption =
        "Accuracy on small, medium and large details (tertiles of the answer's area as a share of the \
                   image), and its relative change from the first row."
            .to_owned();
    (!rows.is_empty()).then(|| Table { caption, head: head.collect(), rows })
}
