//! `pheye runs`: the training runs below a folder, with how far each has come.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use pheye::train::{Standing, Survey};
use pheye_files::quoted;
use serde_json::json;

use crate::numbers;
use crate::out::{say, width};

/// List the training runs below a folder
///
/// The last written run comes first. A run is `finished`, `running` if a process writes to it, `interrupted` if
/// `pheye train CONFIG --resume` can continue it, or `damaged`. Nothing in the folders is changed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder to search
    #[arg(value_name = "DIR", default_value = "runs")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runs = Survey::below(&args.dir)?;
    if args.json {
        let runs: Vec<_> = runs.iter().map(|run| object(&args.dir, run)).collect();
        say!("{}", serde_json::to_string_pretty(&runs)?);
    } else if runs.is_empty() {
        say!("no runs in {}", args.dir.display());
    } else {
        let now = SystemTime::now();
        let rows: Vec<_> = runs.iter().map(|run| row(&args.dir, run, now)).collect();
        table(&rows, width()).iter().for_each(|line| say!("{line}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The path of a run below `dir`, or the name of `dir` if it is the run.
fn name(dir: &Path, run: &Survey) -> String {
    let below = run.path.strip_prefix(dir).unwrap_or(&run.path);
    let shown = if below.as_os_str().is_empty() { &run.path } else { below };
    quoted(&shown.display().to_string())
}

fn object(dir: &Path, run: &Survey) -> serde_json::Value {
    let (state, damage) = state(&run.standing);
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|d| d.as_secs());
    json!({
        "name": name(dir, run),
        "path": run.path.display().to_string(),
        "task": run.task,
        "state": state,
        "damage": damage,
        "step": run.step,
        "steps": run.total,
        "loss": run.loss,
        "accuracy": run.accuracy,
        "written": run.written.and_then(since),
        "bytes": run.bytes,
    })
}

fn state(standing: &Standing) -> (&'static str, Option<&str>) {
    match standing {
        Standing::Finished => ("finished", None),
        Standing::Running => ("running", None),
        Standing::Interrupted => ("interrupted", None),
        Standing::Damaged(reason) => ("damaged", Some(reason)),
    }
}

/// The columns of a run.
fn row(dir: &Path, run: &Survey, now: SystemTime) -> [String; 7] {
    let of = run.total.map_or(String::new(), |total| format!(" of {total}"));
    let state = match &run.standing {
        Standing::Finished => format!("finished, {} steps", run.step),
        Standing::Running => format!("running, step {}{of}", run.step),
        Standing::Interrupted => format!("interrupted at step {}{of}", run.step),
        Standing::Damaged(reason) => format!("damaged: {}", quoted(reason)),
    };
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        name(dir, run),
        or_none(run.task.as_deref().map(quoted)),
        or_none(run.loss.map(|loss| format!("loss {loss:.4}"))),
        or_none(run.accuracy.map(|share| format!("{:.1} %", 100.0 * share))),
        or_none(run.written.map(|time| ago(now, time))),
        numbers::bytes(run.bytes),
        state,
    ]
}

/// The time since `then`. A time in the future, of a clock that was set back, is shown as now.
fn ago(now: SystemTime, then: SystemTime) -> String {
    let seconds = now.duration_since(then).unwrap_or(Duration::ZERO).as_secs();
    match seconds {
        s if s < 60 => "just written".to_owned(),
        s if s < 3600 => format!("{} min ago", s / 60),
        s if s < 48 * 3600 => format!("{} h ago", s / 3600),
        s => format!("{} days ago", s / 86_400),
    }
}

/// Aligned columns; where a line would be wider than `width`, each run takes two lines.
fn table<const N: usize>(rows: &[[String; N]], width: usize) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        widths.iter_mut().zip(row).for_each(|(w, cell)| *w = (*w).max(cell.chars().count()));
    }
    let line = |cells: &[String], widths: &[usize]| {
        let cells = cells.iter().zip(widths).map(|(cell, w)| format!("{cell:w$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    // The last column, which may be long, is not cut.
    if widths.iter().map(|w| w + 2).sum::<usize>() <= width + 2 {
        return rows.iter().map(|row| line(row, &widths)).collect();
    }
    let two = |row: &[String; N]| {
        let first = format!("{}  {}", row[0], row[N - 1]);
        [first, format!("    {}", line(&row[1..N - 1], &widths[1..N - 1]))]
    };
    rows.iter().flat_map(two).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_gets_two_lines_for_each_run() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let rows = [row(["a", "pheye", "finished"]), row(["long", "-", "running"])];
        assert_eq!(table(&rows, 21), ["a     pheye  finished", "long  -      running"]);
        assert_eq!(table(&rows, 20), ["a  finished", "    pheye", "long  running", "    -"]);
    }

    #[test]
    fn a_time_in_the_future_is_now() {
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let after = |s| ago(then + Duration::from_secs(s), then);
        assert_eq!(ago(SystemTime::UNIX_EPOCH, then), "just written");
        assert_eq!(
            [after(59), after(60), after(7200), after(200_000)],
            ["just written", "1 min ago", "2 h ago", "2 days ago"]
        );
    }
}
