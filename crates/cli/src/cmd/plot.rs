//! `pheye plot`: the curves of runs as one file.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::out::tell;
use crate::plot::{Axis, Plot};

/// Plot the curves of one or several runs, one chart per metric
///
/// Shows all values in pale colour and their running means above. Example:
/// `pheye plot runs/a runs/b --out ab.png --x tokens --metric loss,accuracy`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folders of runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// File to write, which ends in .svg or .png
    #[arg(long, value_name = "FILE", default_value = "plot.svg")]
    out: PathBuf,
    /// The horizontal axis
    #[arg(long, value_enum, default_value = "step")]
    x: Axis,
    /// Metrics, separated by commas: names in metrics.jsonl and timing.jsonl, `tokens_per_second`,
    /// `samples_per_second`, or `waiting`; the default is the loss and, where there is one, the accuracy
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    metric: Vec<String>,
    /// Number of values that the running mean covers; 1 for none; the default is a fiftieth of a curve
    #[arg(long, value_name = "N", value_parser = super::at_least_one)]
    smooth: Option<usize>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let plot = Plot { x: args.x, metrics: args.metric, smooth: args.smooth };
    plot.save(&args.runs, &args.out)?;
    tell!("{}", args.out.display());
    Ok(ExitCode::SUCCESS)
}
