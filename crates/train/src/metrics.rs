//! What a run reports about itself: one JSON object a line, and the same numbers for TensorBoard.
//!
//! A resumed run cuts off what was written after its checkpoint, so that the file ends up as an unbroken run's. Log
//! everything about a step before saving its checkpoint.

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
    /// Opens `metrics.jsonl` in the folder `dir`, and with `tensorboard` an event file in `dir/tensorboard`.
    ///
    /// `resumed` is the step of the checkpoint the run goes on from: lines up to and with that step stay. `None`
    /// starts anew, events of an earlier run included.
    ///
    /// # Errors
    /// [`Error::Write`].
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

    /// Appends `{"step": step, name: value, …}` and hands it to the system at once. A value that is not finite is
    /// written as null.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn log(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut text = format!("{{\"step\":{step}");
        for (name, value) in values {
            text += &format!(",{}:{}", Value::from(*name), Value::from(*value));
        }
        text += "}\n";
        // One write: a run killed in it leaves at most one partial line, which the next `open` drops.
        self.file.write_all(text.as_bytes()).map_err(|e| Error::write(&self.path, e))?;
        match &mut self.events {
            Some(events) => events.scalars(step, values),
            None => Ok(()),
        }
    }

    /// Makes everything logged so far durable, events for TensorBoard too.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::write(&self.path, e))?;
        self.events.as_ref().map_or(Ok(()), EventWriter::sync)
    }
}

/// The file, cut off after the last line of step `resumed`, ready to be appended to.
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
