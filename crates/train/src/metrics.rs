//! What a run records about its steps, as JSON lines and as TensorBoard events.
//!
//! `metrics.jsonl` and `spikes.jsonl` depend on the config and the data alone. A resumed run truncates them
//! after the step of its checkpoint, so that they become the same as those of an uninterrupted run. Therefore
//! everything about a step must be logged before its checkpoint is saved. Durations and memory differ from
//! run to run and are in `timing.jsonl`.

use std::path::Path;

use serde_json::{Value, json};

use crate::log::Log;
use crate::spikes::Norms;
use crate::tensorboard::EventWriter;
use crate::{Error, Evaluation, Result, StepReport};

/// The records of one run.
#[derive(Debug)]
pub struct Metrics {
    metrics: Log,
    timing: Log,
    spikes: Log,
    events: Option<EventWriter>,
    norms: Norms,
    warnings: Vec<String>,
}

/// A step whose gradient norm was far above those of the steps before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spike<'a> {
    /// The step.
    pub step: u64,
    /// Its gradient norm.
    pub norm: f64,
    /// The median of the gradient norms of the steps before.
    pub median: f64,
    /// The images of the step, or the positions of its texts.
    pub samples: &'a [String],
}

impl Metrics {
    /// Opens `metrics.jsonl`, `timing.jsonl` and `spikes.jsonl` in the folder `dir` and, if `tensorboard` is
    /// set, an event file in `dir/tensorboard`.
    ///
    /// `resumed` is the step of the checkpoint that the run resumes from: lines up to and including that step
    /// are kept. With `None` the files start empty, and the events of an earlier run are removed.
    ///
    /// # Errors
    /// Returns [`Error::Write`] if a file cannot be opened or written.
    pub fn open(dir: &Path, resumed: Option<u64>, tensorboard: bool) -> Result<Metrics> {
        let mut norms = Norms::default();
        let each = |line: &Value| line["grad_norm"].as_f64().into_iter().for_each(|norm| norms.push(norm));
        let metrics = Log::of_steps(dir.join(METRICS), resumed, each)?;
        let timing = Log::of_steps(dir.join(TIMING), resumed, |_| {})?;
        let spikes = Log::of_steps(dir.join(SPIKES), resumed, |_| {})?;
        let events = dir.join("tensorboard");
        if resumed.is_none() && events.exists() {
            std::fs::remove_dir_all(&events).map_err(|e| Error::write(&events, e))?;
        }
        let events = tensorboard.then(|| EventWriter::create(&events, resumed)).transpose()?;
        Ok(Metrics { metrics, timing, spikes, events, norms, warnings: Vec::new() })
    }

    /// Appends the line `{"step": step, name: value, …}` and writes it immediately. A value that is not
    /// finite is written as null.
    ///
    /// If it cannot be written, it is kept and written with the next line; [`Metrics::warnings`] tells the
    /// reason.
    pub fn log(&mut self, step: u64, values: &[(&str, f64)]) {
        let json: Vec<_> = values.iter().map(|(name, value)| (*name, Value::from(*value))).collect();
        let failed = self.metrics.append(line(step, &json).as_bytes());
        self.warn(failed);
        let failed = self.events.as_mut().and_then(|events| events.scalars(step, values));
        self.warn(failed);
    }

    /// Appends the durations and the memory of a step to `timing.jsonl`, and writes them as events.
    pub fn time(&mut self, r: &StepReport) {
        let mut values: Vec<(&str, Value)> = vec![
            ("seconds", r.seconds.into()),
            ("waiting_seconds", r.waiting.into()),
            ("tokens", r.tokens.into()),
            ("samples", r.samples.into()),
        ];
        let memory = [("peak_resident_bytes", r.memory.peak_resident), ("gpu_bytes", r.memory.gpu)];
        values.extend(memory.into_iter().filter_map(|(name, bytes)| Some((name, bytes?.into()))));
        let failed = self.timing.append(line(r.step, &values).as_bytes());
        self.warn(failed);
        let tag = |(name, value): &(&str, Value)| Some((format!("timing/{name}"), value.as_f64()?));
        let tags: Vec<_> = values.iter().filter_map(tag).collect();
        let tags: Vec<_> = tags.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
        let failed = self.events.as_mut().and_then(|events| events.scalars(r.step, &tags));
        self.warn(failed);
    }

    /// Compares the gradient norm of a step with the median of up to 100 steps before. If it exceeds `times`
    /// times that median, the step is appended to `spikes.jsonl` with its `samples` and returned. With
    /// `times` = 0 nothing is a spike.
    pub fn spike<'a>(
        &mut self,
        step: u64,
        norm: f64,
        times: f64,
        samples: &'a [String],
    ) -> Option<Spike<'a>> {
        let median = self.norms.exceeded(norm, times);
        self.norms.push(norm);
        let median = median?;
        let line = json!({"step": step, "grad_norm": norm, "median": median, "samples": samples});
        let failed = self.spikes.append(format!("{line}\n").as_bytes());
        self.warn(failed);
        Some(Spike { step, norm, median, samples })
    }

    /// Logs the accuracy of an evaluation, and writes its answered images as events.
    pub fn evaluated(&mut self, step: u64, evaluation: &Evaluation) {
        self.log(step, &[("accuracy", evaluation.accuracy)]);
        let failed = self.events.as_mut().and_then(|events| events.answers(step, &evaluation.shown));
        self.warn(failed);
    }

    /// Why something could not be written yet, for the first of several failures in a row.
    pub fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Flushes everything logged so far to the disk, including the TensorBoard events. Files that were
    /// removed are written again.
    ///
    /// # Errors
    /// Returns [`Error::Write`] if that fails.
    pub fn sync(&mut self) -> Result<()> {
        self.metrics.sync()?;
        self.timing.sync()?;
        self.spikes.sync()?;
        self.events.as_mut().map_or(Ok(()), EventWriter::sync)
    }

    fn warn(&mut self, failed: Option<Error>) {
        let text = |e: Error| format!("{}; it is tried again with the next step", pheye_files::chain(&e));
        self.warnings.extend(failed.map(text));
    }
}

/// File of the values of each step.
pub(crate) const METRICS: &str = "metrics.jsonl";
/// File of the durations and the memory of each step.
pub(crate) const TIMING: &str = "timing.jsonl";
/// File of the steps whose gradients were far above the others.
const SPIKES: &str = "spikes.jsonl";

/// The JSON line `{"step": step, name: value, …}`, in the order of `values`.
fn line(step: u64, values: &[(&str, Value)]) -> String {
    let mut text = format!("{{\"step\":{step}");
    for (name, value) in values {
        text += &format!(",{}:{value}", Value::from(*name));
    }
    text + "}\n"
}
