//! `pheye report`: evaluations side by side, as one page and as Markdown.

mod charts;
mod evaluation;
mod html;
mod markdown;
mod paper;
mod tables;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use evaluation::Evaluation;
pub(crate) use evaluation::Sample;

use super::eval::write;
use crate::out::tell;

/// Show evaluations side by side: scores beside the paper's, details by size, attention, samples
///
/// Each EVALUATION is a folder of `pheye eval BENCHMARK --out DIR`, with a name before it if several are compared:
///
///   pheye report "level 1=runs/l1" "level 2=runs/l2" "level 3=runs/l3" --out docs/report
///
/// Writes DIR/report.html, one file that needs no other, and DIR/report.md with its charts as SVG files. The first
/// evaluation of a benchmark is the one that relative changes refer to.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// Folders of evaluations, each with an optional name: NAME=DIR
    #[arg(value_name = "[NAME=]DIR", required = true)]
    evaluations: Vec<String>,
    /// Folder to write
    #[arg(long, value_name = "DIR", default_value = "report")]
    out: PathBuf,
    /// The title
    #[arg(long, value_name = "TEXT", default_value = "Evaluation")]
    title: String,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut evaluations = Vec::new();
    for named in &args.evaluations {
        let (name, dir) = match named.split_once('=') {
            Some((name, dir)) => (name.to_owned(), PathBuf::from(dir)),
            None => {
                (named.trim_end_matches('/').rsplit('/').next().unwrap_or(named).to_owned(), named.into())
            }
        };
        evaluations.push(Evaluation::open(name, &dir)?);
    }
    ensure!(!evaluations.is_empty(), "no evaluations");
    let benchmarks = evaluation::by_benchmark(&evaluations);
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("{}: cannot be created", args.out.display()))?;
    let figures = charts::all(&benchmarks);
    write(&args.out.join("report.html"), &html::page(&args.title, &benchmarks, &figures))?;
    write(&args.out.join("report.md"), &markdown::page(&args.title, &benchmarks, &figures))?;
    for figure in &figures {
        write(&args.out.join(&figure.file), &figure.svg)?;
    }
    tell!("{}", args.out.join("report.html").display());
    Ok(ExitCode::SUCCESS)
}
