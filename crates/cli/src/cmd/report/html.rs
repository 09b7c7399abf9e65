//! The report as one page that needs no other file.

use std::fmt::Write;

use super::charts::Figure;
use super::evaluation::{Evaluation, Group};
use super::tables::{self, Table};
use crate::show::escape;

const STYLE: &str = include_str!("page.css");

pub(crate) fn page(title: &str, groups: &[Group], figures: &[Figure]) -> String {
    let title = escape(title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         <h1>{title}</h1>\n"
    );
    if groups.len() > 1 {
        out += "<nav><ul>\n";
        for (i, group) in groups.iter().enumerate() {
            let _ = writeln!(out, "<li><a href=\"#part-{i}\">{}</a></li>", escape(&group.title));
        }
        out += "</ul></nav>\n";
    }
    for (i, group) in groups.iter().enumerate() {
        let _ = writeln!(out, "<section>\n<h2 id=\"part-{i}\">{}</h2>", escape(&group.title));
        tables::all(group).iter().for_each(|table| out += &html_table(table));
        for figure in figures.iter().filter(|figure| figure.group == i) {
            let _ = writeln!(
                out,
                "<figure>\n{}<figcaption>{}</figcaption>\n</figure>",
                figure.svg,
                escape(&figure.caption)
            );
        }
        group.evaluations.iter().for_each(|evaluation| out += &samples(evaluation));
        out += "<details>\n<summary>How these figures were made</summary>\n<pre>";
        for evaluation in &group.evaluations {
            let _ = writeln!(out, "{}  # {}", escape(&evaluation.command), escape(&evaluation.name));
        }
        out += "</pre>\n</details>\n</section>\n";
    }
    out
}

fn html_table(table: &Table) -> String {
    let mut out = format!(
        "<div class=\"scroll\">\n<table>\n<caption>{}</caption>\n<thead><tr>",
        escape(&table.caption)
    );
    table.head.iter().for_each(|text| _ = write!(out, "<th scope=\"col\">{}</th>", escape(text)));
    out += "</tr></thead>\n<tbody>\n";
    for row in &table.rows {
        out += "<tr>";
        for (i, text) in row.iter().enumerate() {
            let _ = match i {
                0 => write!(out, "<th scope=\"row\">{}</th>", escape(text)),
                _ => write!(out, "<td>{}</td>", escape(text)),
            };
        }
        out += "</tr>\n";
    }
    out + "</tbody>\n</table>\n</div>\n"
}

/// Images with their answers, and where the model looked.
fn samples(evaluation: &Evaluation) -> String {
    if evaluation.samples.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "<h3>{}: samples, and where the model looked</h3>\n<div class=\"samples\">\n",
        escape(&evaluation.name)
    );
    for sample in &evaluation.samples {
        let right = sample.expected.as_ref().map(|expected| expected.eq_ignore_ascii_case(&sample.answer));
        let (class, note) = match (right, &sample.expected) {
            (Some(false), Some(expected)) => {
                ("wrong", format!(" <small>(expected: {})</small>", escape(expected)))
            }
            (Some(true), _) => ("right", String::new()),
            _ => ("", String::new()),
        };
        let question = escape(sample.instruction.lines().next().unwrap_or_default());
        let _ = writeln!(
            out,
            "<article>\n<div class=\"pair\"><img alt=\"The image\" src=\"data:image/png;base64,{}\"><img \
             alt=\"Where the model looked\" src=\"data:image/png;base64,{}\"></div>\n<p>{question}</p>\n<p \
             class=\"{class}\">{}{note}</p>\n</article>",
            sample.image,
            sample.look,
            escape(&sample.answer)
        );
    }
    out + "</div>\n"
}
