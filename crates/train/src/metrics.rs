//! The metrics of a run: one JSON object per line, and the same numbers as TensorBoard events.
//!
//! A resumed run truncates the file after the step of its checkpoint, so that the file becomes the same as
//! that of an uninterrupted run. Therefore everything about a step must be logged before its checkpoint is
//! saved.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::tensorboard::EventWriter;
use crate::{Error, Result};

/// The metrics of one run.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    events: Option<EventWriter>,
}

impl Metrics {
    /// Opens `metrics.jsonl` in the folder `dir` and, if `tensorboard` is set, an event file in
    /// `dir/tensorboard`.
    ///
    /// `resumed` is the step of the checkpoint that the run resumes from: lines up to and including that step
    /// are kept. With `None` the metrics start empty, and the events of an earlier run are removed.
    ///
    /// # Errors
    /// Returns [`Error::Write`] if a file cannot be opened or written.
    pub fn open(dir: &Path, resumed: Option<u64>, tensorboard: bool) -> Result<Metrics> {
        let path = dir.join("metrics.jsonl");
        let file = open(dir, &path, resumed).map_err(|e| Error::write(&path, e))?;
        let events = dir.join("tensorboard");
        if resumed.is_none() && events.exists() {
            std::fs::remove_dir_all(&events).map_err(|e| Error::write(&events, e))?;
        }
        let events = tensorboard.then(|| EventWriter::create(&events, resumed)).transpose()?;
        Ok(Metrics { path, file, events })
    }

    /// Appends the line `{"step": step, name: value, …}` and writes it immediately. A value that is not
    /// finite is written as null.
    ///
    /// # Errors
    /// Returns [`Error::Write`] if writing fails.
    pub fn log(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut text = format!("{{\"step\":{step}");
        for (name, value) in values {
            text += &format!(",{}:{}", Value::from(*name), Value::from(*value));
        }
        text += "}\n";
        // A single write: a run killed during it leaves at most one partial line, which the next `open`
        // removes.
        self.file.write_all(text.as_bytes()).map_err(|e| Error::write(&self.path, e))?;
        match &mut self.events {
            Some(events) => events.scalars(step, values),
            None => Ok(()),
        }
    }

    /// Flushes everything logged so far to the disk, including the TensorBoard events.
    ///
    /// # Errors
    /// Returns [`Error::Write`] if flushing fails.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::write(&self.path, e))?;
        self.events.as_ref().map_or(Ok(()), EventWriter::sync)
    }
}

/// Opens the file for appending, truncated after the last line of step `resumed`.
fn open(dir: &Path, path: &Path, resumed: Option<u64>) -> std::io::Result<File> {
    std::fs::create_dir_all(dir)?;
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let mut end = 0;
    if let Some(step) = resumed {
        let (mut reader, mut line) = (BufReader::new(&file), Vec::new());
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            let value: Option<Value> = serde_json::from_slice(&line).ok();
            if value.and_then(|v| v["step"].as_u64()).is_none_or(|s| s > step) {
                break;
            }
            end += line.len() as u64;
            line.clear();
        }
    }
    file.set_len(end)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}
