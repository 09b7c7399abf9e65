//! The training loop: takes steps, and saves checkpoints and metrics.
//!
//! All random numbers of a step follow from the config's seed and the counters in [`State`](crate::State), so
//! a run that was interrupted and resumed ends with the same bits as an uninterrupted one.

use std::path::{Path, PathBuf};
use std::time::Instant;

use pheye_data::{Encode, Loader, OnBroken};
use pheye_ops::Cx;

use crate::feed;
use crate::memory::{MemoryUse, Reading};
use crate::run::{Run, Source};
use crate::{Config, Error, Evaluate, Evaluation, Interrupt, Metrics, Result, Spike};

/// What a run does if its folder contains an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Returns an error, so that nothing is overwritten by accident.
    New,
    /// Continues from the last undamaged checkpoint; starts from the beginning if there is none.
    Resume,
    /// Starts from the beginning and removes the checkpoints of the earlier run.
    Over,
}

/// An event of a run, reported when it happens.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Weights are being loaded.
    Loading {
        /// Bytes loaded so far.
        done: u64,
        /// Total bytes.
        all: u64,
    },
    /// The run begins.
    Begin {
        /// Steps of the whole run.
        total: u64,
        /// Steps that were taken before a resume.
        from: u64,
        /// Number of trained parameters (scalars).
        trained: usize,
        /// Why checkpoints newer than the resumed one were skipped.
        skipped: &'a [String],
    },
    /// A step was taken.
    Step(StepReport),
    /// The gradient of a step was far above those of the steps before.
    Spike(Spike<'a>),
    /// The model was evaluated after a step.
    Evaluated {
        /// Steps taken so far.
        step: u64,
        /// What was measured.
        evaluation: &'a Evaluation,
    },
    /// A checkpoint was saved.
    Saved(&'a Path),
    /// An image or text was skipped (`data.on_broken = "skip"`).
    Skipped {
        /// What was skipped, and why.
        why: &'a str,
        /// Number of images and texts skipped so far.
        total: u64,
    },
    /// A problem that does not stop the run.
    Warning(&'a str),
}

/// A report of one step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Steps taken so far.
    pub step: u64,
    /// Mean loss over the target tokens of the step (images, for contrastive training).
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Norm of the mean gradient before clipping.
    pub grad_norm: f64,
    /// Target tokens of the step; images, for contrastive training.
    pub tokens: u64,
    /// Images (texts, for data without images) drawn for the step.
    pub samples: u64,
    /// Duration of the step in seconds.
    pub seconds: f64,
    /// Seconds of these in which the training thread waited for batches.
    pub waiting: f64,
    /// Memory in use.
    pub memory: MemoryUse,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps taken.
    pub step: u64,
    /// Whether all steps were taken; otherwise the run was interrupted and can be resumed.
    pub finished: bool,
    /// The folder of the trained model.
    pub model: Option<PathBuf>,
    /// Number of images and texts skipped, including those before a resume.
    pub skipped: u64,
    /// Why the first few of them were skipped.
    pub reasons: Vec<String>,
}

/// Trains as specified by `config`. `encode` turns texts into token ids, `evaluate` measures the model every
/// `eval.every` steps and after the last one, `stop` makes the run save and return after the current step, and
/// `on` receives each event.
///
/// With `data.on_broken = "skip"`, unusable samples are skipped and counted. A step whose samples are all
/// unusable takes the samples after them instead.
///
/// # Errors
/// Returns an error if a file cannot be read or written; if the checkpoint to resume from was made with
/// another config or other files; if the data cannot be used or the evaluation fails, after saving the run if
/// it has taken a step ([`Error::Halted`]); or if a loss or gradient is not finite ([`Error::NotFinite`]): it names the step and
/// the images, and the last checkpoint is kept.
pub fn train(
    cx: &Cx,
    config: &Config,
    encode: Box<Encode>,
    mut evaluate: Option<Box<Evaluate>>,
    start: Start,
    stop: &Interrupt,
    mut on: impl FnMut(Event),
) -> Result<Outcome> {
    let out = config.resolve(&config.train.out);
    let tokenizer = config.tokenizer()?;
    let loader = feed::loader(config, &config.shape()?, encode)?;
    let mut run = Run::new(cx, config, &out, |done, all| on(Event::Loading { done, all }))?;
    let resumed = run.start(start, &out, loader.mixture())?;
    run.move_to(cx)?;
    let mut metrics =
        Metrics::open(&out, resumed.as_ref().map(|_| run.state.step), config.train.tensorboard)?;
    let total = steps(config, &loader);
    run.state.total = total;
    let resumed = resumed.unwrap_or_default();
    let trained = run.optimizer.grads.table.entries().iter().map(|(_, r)| r.len()).sum();
    on(Event::Begin { total, from: run.state.step, trained, skipped: &resumed.passed_over });
    let remarks = run.learner.remarks().iter().chain(&resumed.warnings);
    remarks.for_each(|text| on(Event::Warning(text)));

    let mut source = Source::new(loader, run.state.samples, config.data.prefetch);
    if let Some(e) = source.batches.no_thread() {
        on(Event::Warning(&format!("no thread to build batches ahead ({e}): they are built in turn")));
    }
    let schedule = config.optim.schedule();
    let mut memory = Reading::default();
    while run.state.step < total {
        let began = Instant::now();
        let mut taken = match run.take(cx, &mut source, total, &mut on) {
            Err(error @ (Error::Data(_) | Error::NothingUsable { .. })) if run.state.step > 0 => {
                return Err(run.halt(error, &mut metrics, &mut on));
            }
            other => other?,
        };
        let step = run.state.step + 1;
        let lr = schedule.lr(run.state.step, total);
        let loss = taken.loss;
        if !loss.sum.is_finite() {
            return Err(run.not_finite("loss", loss.sum, step, taken.names));
        }
        let grad_norm = match run.step(cx, lr, loss.tokens as u64) {
            Err(Error::Optim(pheye_optim::Error::NonFinite { norm })) => {
                return Err(run.not_finite("norm of the gradient", norm, step, taken.names));
            }
            other => other?,
        };
        let names = std::mem::take(&mut taken.names);
        let samples = run.advance(taken);
        let (mean, tokens) = (loss.sum / loss.tokens as f64, loss.tokens as u64);
        let mut values =
            vec![("loss", mean), ("lr", lr), ("grad_norm", grad_norm), ("tokens", tokens as f64)];
        if config.data.on_broken == OnBroken::Skip {
            values.push(("skipped", run.state.skipped as f64));
        }
        metrics.log(step, &values);
        if let Some(spike) = metrics.spike(step, grad_norm, config.train.spike, &names) {
            on(Event::Spike(spike));
        }
        let waiting = std::mem::take(&mut run.waited).as_secs_f64();
        let memory = memory.now(&cx.device);
        let seconds = began.elapsed().as_secs_f64();
        let report =
            StepReport { step, loss: mean, lr, grad_norm, tokens, samples, seconds, waiting, memory };
        metrics.time(&report);
        on(Event::Step(report));

        let every = config.eval.every;
        if let Some(evaluate) = evaluate.as_mut().filter(|_| due(every, step, step == total)) {
            match run.evaluate(cx, evaluate) {
                Ok(evaluation) => {
                    metrics.evaluated(step, &evaluation);
                    on(Event::Evaluated { step, evaluation: &evaluation });
                }
                Err(error) => return Err(run.halt(error, &mut metrics, &mut on)),
            }
        }
        metrics.warnings().iter().for_each(|text| on(Event::Warning(text)));
        let stopped = stop.stopped() && step < total;
        if step == total || stopped || due(config.train.checkpoint_every, step, false) {
            let path = run.save(&mut metrics)?;
            on(Event::Saved(&path));
        }
        if stopped {
            return Ok(run.outcome(None));
        }
    }
    drop(source);
    let model = config.model.out.as_ref().map_or_else(|| out.join("model"), |out| config.resolve(out));
    run.learner.export(&model, &tokenizer)?;
    Ok(run.outcome(Some(model)))
}

/// Whether something is due after `step` that happens every `every` steps, or never with 0. With `every` above
/// 0 it is also due if `last`.
fn due(every: u64, step: u64, last: bool) -> bool {
    every > 0 && (last || step.is_multiple_of(every))
}

/// Number of steps of the whole run.
pub(crate) fn steps(config: &Config, loader: &Loader) -> u64 {
    let per_step = config.train.batch.saturating_mul(config.train.accumulation) as f64;
    config.train.steps.unwrap_or_else(|| {
        let samples = loader.mixture().epoch_len() as f64 * config.train.epochs.unwrap_or(1.0);
        ((samples / per_step).ceil() as u64).max(1)
    })
}
