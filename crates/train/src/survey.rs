//! What the folder of a run tells about it, read without changing anything.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::metrics::METRICS;
use crate::{Error, Result, State, checkpoint, lock};

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// All steps were taken, and the model was written.
    Finished,
    /// A process writes to the folder.
    Running,
    /// Nobody works on it, and `--resume` continues it.
    Interrupted,
    /// It has no checkpoint that can be read, or its metrics cannot be read; the reason.
    Damaged(String),
}

/// A run, as its folder shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// The folder.
    pub path: PathBuf,
    /// The training task, once there is a checkpoint.
    pub task: Option<String>,
    /// How far it has come.
    pub standing: Standing,
    /// Steps taken: those of the last checkpoint, or those logged so far if the run is running.
    pub step: u64,
    /// Steps of the whole run, once there is a checkpoint.
    pub total: Option<u64>,
    /// The loss of the last step.
    pub loss: Option<f64>,
    /// The result of the last evaluation.
    pub accuracy: Option<f64>,
    /// When one of its files was last written.
    pub written: Option<SystemTime>,
    /// Size of its files in bytes.
    pub bytes: u64,
}

/// Deepest folder below the given one in which runs are looked for.
const DEPTH: usize = 6;
/// Longest line of a file of metrics, in bytes.
const LINE: u64 = 1 << 20;

impl Survey {
    /// All runs in `dir` and the folders below it, the last written first. Symbolic links and hidden folders
    /// are not followed.
    ///
    /// # Errors
    /// Returns [`Error::Read`] if `dir` cannot be read.
    pub fn below(dir: &Path) -> Result<Vec<Survey>> {
        let mut found = Vec::new();
        walk(dir, DEPTH, &mut found).map_err(|e| Error::read(dir, e))?;
        let mut runs: Vec<_> = found.iter().map(|path| Survey::read(path)).collect();
        runs.sort_by(|a, b| b.written.cmp(&a.written).then_with(|| a.path.cmp(&b.path)));
        Ok(runs)
    }

    /// The run in the folder `dir`.
    pub fn read(dir: &Path) -> Survey {
        let (mut loss, mut accuracy, mut logged) = (None, None, 0);
        let rows = rows(&dir.join(METRICS), |step, row| {
            logged = step;
            loss = row["loss"].as_f64().or(loss);
            accuracy = row["accuracy"].as_f64().or(accuracy);
        });
        let (state, damage) = last(dir);
        let unreadable = match rows {
            Err(Error::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            other => other.err().map(|e| pheye_files::chain(&e)),
        };
        let (bytes, written) = size(dir);
        let mut survey = Survey {
            path: dir.to_owned(),
            task: None,
            standing: Standing::Interrupted,
            step: logged,
            total: None,
            loss,
            accuracy,
            written,
            bytes,
        };
        let running = lock::held(dir);
        if let Some(state) = &state {
            survey.task = state.config["task"].as_str().map(str::to_owned);
            survey.total = Some(state.total).filter(|n| *n > 0).or(state.config["train"]["steps"].as_u64());
            survey.step = if running { logged.max(state.step) } else { state.step };
        }
        survey.standing = match damage.filter(|_| state.is_none()).or(unreadable) {
            _ if running => Standing::Running,
            Some(reason) => Standing::Damaged(reason),
            None if state.is_some_and(|state| finished(dir, &state, survey.total)) => Standing::Finished,
            None => Standing::Interrupted,
        };
        survey
    }
}

/// Whether all steps were taken and the model is there, as far as its folder is known.
fn finished(dir: &Path, state: &State, total: Option<u64>) -> bool {
    let elsewhere = !state.config["model"]["out"].is_null();
    Some(state.step) == total && (elsewhere || dir.join("model").is_dir())
}

/// The state of the newest checkpoint that is whole at a glance, and what is wrong with a newer one.
fn last(dir: &Path) -> (Option<State>, Option<String>) {
    let mut damage = None;
    for (_, path) in checkpoint::steps_in(&dir.join("checkpoints")).unwrap_or_default().into_iter().rev() {
        match checkpoint::glance(&path) {
            Ok(state) => return (Some(state), damage),
            Err(error) => damage = damage.or(Some(error.to_string())),
        }
    }
    (None, damage)
}

/// Reads a file of JSON lines, each with a `step`, and passes each line to `each`. A last line that is not
/// complete, as a run that is writing or was killed leaves it, is left out.
///
/// # Errors
/// Returns [`Error::Read`] if the file cannot be read, or [`Error::Line`] for another line that is not valid.
pub fn rows(path: &Path, mut each: impl FnMut(u64, &Value)) -> Result<()> {
    let file = pheye_files::open(path, pheye_files::Kind::Regular).map_err(|e| Error::read(path, e))?;
    let (mut reader, mut text) = (BufReader::new(file), Vec::new());
    for line in 1.. {
        text.clear();
        let read = (&mut reader).take(LINE).read_until(b'\n', &mut text);
        read.map_err(|e| Error::read(path, e))?;
        let error = |message: String| Error::Line { path: path.into(), line, message };
        if !text.ends_with(b"\n") {
            let long = text.len() as u64 == LINE;
            return if long { Err(error(format!("longer than {LINE} bytes"))) } else { Ok(()) };
        }
        let row: Value = serde_json::from_slice(&text).map_err(|e| error(e.to_string()))?;
        let step = row["step"].as_u64().ok_or_else(|| error("there is no `step`".into()))?;
        each(step, &row);
    }
    Ok(())
}

/// Whether `dir` is the folder of a run.
pub fn is_run(dir: &Path) -> bool {
    [METRICS, lock::NAME].iter().any(|name| dir.join(name).is_file())
}

fn walk(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if is_run(dir) {
        found.push(dir.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if depth > 0 && !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // A folder that may not be read holds no run that could be shown.
            let _ = walk(&entry.path(), depth - 1, found);
        }
    }
    Ok(())
}

/// The size of all files in `dir`, and the time of the last change. Files that vanish meanwhile do not count.
fn size(dir: &Path) -> (u64, Option<SystemTime>) {
    let (mut bytes, mut written) = (0, None);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let (more, time) = match metadata.is_dir() {
            true => size(&entry.path()),
            false => (metadata.len(), metadata.modified().ok()),
        };
        bytes += more;
        written = written.max(time);
    }
    (bytes, written)
}
