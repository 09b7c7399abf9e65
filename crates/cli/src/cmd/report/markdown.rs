//! The report as Markdown, with its charts as files.

use std::fmt::Write;

use super::charts::Figure;
use super::evaluation::Group;
use super::tables;

pub(crate) fn page(title: &str, groups: &[Group], figures: &[Figure]) -> String {
    let mut out = format!("# {}\n", cell(title));
    for (i, group) in groups.iter().enumerate() {
        let _ = write!(out, "\n## {}\n", cell(&group.title));
        for table in tables::all(group) {
            let row = |cells: &[String]| {
                format!("| {} |\n", cells.iter().map(|text| cell(text)).collect::<Vec<_>>().join(" | "))
            };
            let _ = write!(out, "\n{}\n\n{}", table.caption, row(&table.head));
            let rules: Vec<String> =
                (0..table.head.len()).map(|i| if i == 0 { "---" } else { "---:" }.to_owned()).collect();
            out += &row(&rules);
            table.rows.iter().for_each(|cells| out += &row(cells));
        }
        for figure in figures.iter().filter(|figure| figure.group == i) {
            let _ = write!(out, "\n![{0}]({1})\n\n{0}\n", cell(&figure.caption), figure.file);
        }
        out += "\nMade with\n\n```sh\n";
        for evaluation in &group.evaluations {
            let _ = writeln!(out, "{}  # {}", evaluation.command, evaluation.name);
        }
        out += "```\n";
    }
    out
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ").replace('<', "&lt;")
}
