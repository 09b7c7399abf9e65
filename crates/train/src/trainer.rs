//! The loop: batches in, steps out, checkpoints and metrics on the way.
//!
//! Whatever a step draws at random follows from the config's seed and the counters in [`State`], so a run that was cut
//! off and resumed ends with the same bits as one that was not.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Instant;

use pheye_data::{Batch, Encode, Prefetch};
use pheye_model::{Load, Loss, QueuedLoss};
use pheye_ops::adamw::Moments;
use pheye_ops::lora::Dropout;
use pheye_ops::{Ahead, Arriving, Cx, Graphs};
use pheye_optim::Optimizer;
use pheye_tensor::{DType, GpuError};
use pheye_weights::{Checkpoint, save_safetensors};

use crate::feed;
use crate::learner::Learner;
use crate::{Checkpoints, Config, Error, Interrupt, Metrics, Result, State};

/// What a run does when its folder holds an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Refuses: nothing is overwritten unasked.
    New,
    /// Goes on from the last whole checkpoint; starts at the beginning when there is none.
    Resume,
    /// Starts at the beginning; the earlier run's checkpoints are removed.
    Over,
}

/// What happens in a run, as it happens.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Weights are read.
    Loading {
        /// Bytes so far.
        done: u64,
        /// All bytes.
        all: u64,
    },
    /// The run begins.
    Begin {
        /// Steps of the whole run.
        total: u64,
        /// Steps taken before.
        from: u64,
        /// Trained parameters.
        trained: usize,
        /// Why newer checkpoints than the one resumed were passed over.
        skipped: &'a [String],
    },
    /// A step was taken.
    Step(StepReport),
    /// A checkpoint was saved.
    Saved(&'a Path),
}

/// One step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Steps taken so far.
    pub step: u64,
    /// Mean loss over the step's tokens.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Norm of the mean gradient before clipping.
    pub grad_norm: f64,
    /// Tokens learnt from in the step.
    pub tokens: u64,
    /// Seconds of the step.
    pub seconds: f64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps taken.
    pub step: u64,
    /// Whether all steps were taken; if not, the run was asked to stop, and can be resumed.
    pub finished: bool,
    /// The folder with the finished model.
    pub model: Option<PathBuf>,
}

const WEIGHTS: &str = "trained.safetensors";
const MOMENTS: &str = "moments.safetensors";

/// A run: what it learns, how far it is, and where it saves.
struct Run<'a> {
    config: &'a Config,
    learner: Learner,
    optimizer: Optimizer,
    state: State,
    checkpoints: Checkpoints,
    graphs: Graphs,
    ahead: Ahead,
    _lock: File,
}

/// A batch that is about to be learnt from.
struct Ready {
    batch: Batch,
    pixels: Option<Arriving>,
    /// Where the batch after it starts.
    after: u64,
}

/// Trains as `config` says; `encode` turns its texts into tokens. Raising `stop` saves and returns after the step under way.
///
/// # Errors
/// Files that cannot be read or written, a checkpoint of another config, and a loss or gradient that is not finite:
/// the error then names the step and the pictures, and the last checkpoint stays as it was.
pub fn train(
    cx: &Cx,
    config: &Config,
    encode: Box<Encode>,
    start: Start,
    stop: &Interrupt,
    mut on: impl FnMut(Event),
) -> Result<Outcome> {
    let out = config.resolve(&config.train.out);
    let network = config.network()?;
    let tokenizer = config.needed("model.tokenizer", &config.model.tokenizer)?;
    let loader = feed::loader(config, &network, encode)?;
    let mut run = Run::new(config, &network, &out, |done, all| on(Event::Loading { done, all }))?;
    let resumed = match start {
        Start::New if !run.checkpoints.steps()?.is_empty() => return Err(Error::RunExists { path: out }),
        Start::New | Start::Over => None,
        Start::Resume => run.resume()?,
    };
    if start == Start::Over {
        run.checkpoints.clear()?;
    }
    run.move_to(cx)?;
    let mut metrics =
        Metrics::open(&out, resumed.as_ref().map(|_| run.state.step), config.train.tensorboard)?;
    let per_step = (config.train.batch * config.train.accumulation) as u64;
    let total = config.train.steps.unwrap_or_else(|| {
        let samples = loader.mixture().epoch_len() as f64 * config.train.epochs.unwrap_or(1.0);
        ((samples / per_step as f64).ceil() as u64).max(1)
    });
    let skipped = resumed.unwrap_or_default();
    let trained = run.optimizer.grads.table.entries().iter().map(|(_, r)| r.len()).sum();
    on(Event::Begin { total, from: run.state.step, trained, skipped: &skipped });

    let mut batches = Prefetch::new(loader, run.state.samples, config.data.prefetch);
    let (schedule, accumulation) = (config.optim.schedule(), config.train.accumulation as u64);
    let mut ready: Option<Result<Ready>> = None;
    while run.state.step < total {
        let began = Instant::now();
        let mut loss = Loss::default();
        let mut names = Vec::new();
        let mut position = run.state.samples;
        for micro in 0..accumulation {
            let Ready { batch, pixels, after } = match ready.take() {
                Some(ready) => ready?,
                None => run.fetch(cx, &mut batches)?,
            };
            position = after;
            let queued = run.learn(cx, &batch, pixels, run.state.step * accumulation + micro);
            // While a GPU works on this one.
            if run.state.step + 1 < total || micro + 1 < accumulation {
                ready = Some(run.fetch(cx, &mut batches));
            }
            let part = queued.and_then(|queued| Ok(queued.read()?));
            let part = part.map_err(|e| run.short_of_memory(e, &network, &batch))?;
            loss.sum += part.sum;
            loss.tokens += part.tokens;
            names.extend(batch.pictures.into_iter().map(|p| p.name));
        }
        if names.is_empty() {
            names.push(format!("texts {} to {position} of the order", run.state.samples));
        }
        let step = run.state.step + 1;
        let lr = schedule.lr(run.state.step, total);
        if !loss.sum.is_finite() {
            return Err(run.not_finite("loss", loss.sum, step, names));
        }
        let grad_norm = match run.step(cx, lr, loss.tokens as u64) {
            Err(Error::Optim(pheye_optim::Error::NonFinite { norm })) => {
                return Err(run.not_finite("norm of the gradient", norm, step, names));
            }
            other => other?,
        };
        run.state.step = step;
        run.state.samples = position;
        run.state.tokens += loss.tokens as u64;
        let mean = loss.sum / loss.tokens as f64;
        let seconds = began.elapsed().as_secs_f64();
        metrics.log(
            step,
            &[("loss", mean), ("lr", lr), ("grad_norm", grad_norm), ("tokens", loss.tokens as f64)],
        )?;
        on(Event::Step(StepReport { step, loss: mean, lr, grad_norm, tokens: loss.tokens as u64, seconds }));

        let every = config.train.checkpoint_every;
        let stopped = stop.stopped() && step < total;
        if step == total || stopped || (every > 0 && step % every == 0) {
            let path = run.save()?;
            on(Event::Saved(&path));
        }
        if stopped {
            return Ok(Outcome { step, finished: false, model: None });
        }
    }
    drop(batches);
    let model = config.model.out.as_ref().map_or_else(|| out.join("model"), |out| config.resolve(out));
    run.learner.export(&model, &tokenizer)?;
    Ok(Outcome { step: run.state.step, finished: true, model: Some(model) })
}

/// Keeps other processes out of a run's folder for as long as the file is open.
fn lock(out: &Path) -> Result<File> {
    let path = out.join("run.lock");
    let opened = fs::create_dir_all(out).and_then(|()| File::create(&path));
    let file = opened.map_err(|e| Error::io(&path, e))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::RunBusy { path: out.into() }),
        // Some network file systems have no locks.
        Err(TryLockError::Error(_)) | Ok(()) => Ok(file),
    }
}

impl<'a> Run<'a> {
    fn new(
        config: &'a Config,
        network: &pheye_model::Config,
        out: &Path,
        progress: impl FnMut(u64, u64),
    ) -> Result<Run<'a>> {
        let mut learner = Learner::new(config, network, progress)?;
        let table = learner.choose(&config.train.trainable)?;
        learner.set_recompute(config.train.recompute);
        if table.is_empty() {
            return Err(Error::NothingTrained { patterns: config.train.trainable.clone() });
        }
        let optimizer = Optimizer::new(table, config.optim.adamw())?;
        let lock = lock(out)?;
        let checkpoints = Checkpoints::open(out.join("checkpoints"), config.train.keep)?;
        let state = State { config: config.echo()?, ..State::default() };
        Ok(Run {
            config,
            learner,
            optimizer,
            state,
            checkpoints,
            graphs: Graphs::default(),
            ahead: Ahead::default(),
            _lock: lock,
        })
    }

    /// Goes on from the last whole checkpoint: why newer ones were passed over, or `None` when there is none.
    fn resume(&mut self) -> Result<Option<Vec<String>>> {
        let Some(loaded) = self.checkpoints.resume(self.config)? else { return Ok(None) };
        let weights = Checkpoint::open(loaded.path.join(WEIGHTS))?;
        for param in self.learner.params_mut() {
            if param.is_trained() {
                param.value = weights.tensor(&param.name, DType::F32)?;
            }
        }
        let moments = Checkpoint::open(loaded.path.join(MOMENTS))?;
        let moments = Moments { m: moments.tensor("m", DType::F32)?, v: moments.tensor("v", DType::F32)? };
        self.optimizer.restore(moments, loaded.state.step)?;
        self.state = State { config: self.config.echo()?, ..loaded.state };
        Ok(Some(loaded.skipped))
    }

    /// Moves the parameters and the optimizer to the device of `cx`.
    fn move_to(&mut self, cx: &Cx) -> Result<()> {
        match self.learner.move_to(&cx.device, &self.optimizer.grads.table)? {
            Some(masters) => Ok(self.optimizer.move_to(cx, masters)?),
            None => Ok(()),
        }
    }

    /// The next batch, its pixels on their way to the device.
    fn fetch(&mut self, cx: &Cx, batches: &mut Prefetch) -> Result<Ready> {
        let batch = batches.next_batch()?;
        let pixels = self.learner.pixels(&batch)?;
        let pixels = pixels.map(|pixels| self.ahead.upload(cx, &pixels)).transpose()?;
        Ok(Ready { batch, pixels, after: batches.position() })
    }

    fn learn(&mut self, cx: &Cx, batch: &Batch, pixels: Option<Arriving>, stream: u64) -> Result<QueuedLoss> {
        let c = &self.config.train;
        let dropout =
            (c.lora_dropout > 0.0).then_some(Dropout { p: c.lora_dropout as f32, seed: c.seed, stream });
        let pixels = pixels.map(Arriving::join).transpose()?;
        self.learner.queue(cx, batch, pixels, dropout, &mut self.optimizer.grads, &mut self.graphs)
    }

    fn step(&mut self, cx: &Cx, lr: f64, tokens: u64) -> Result<f64> {
        let clip = self.config.optim.clip;
        Ok(self.optimizer.apply(cx, &mut self.learner.params_mut(), lr, tokens, clip)?)
    }

    fn save(&mut self) -> Result<PathBuf> {
        let params = self.learner.params_mut();
        let trained = params.iter().filter(|p| p.is_trained()).map(|p| (p.name.as_str(), &p.value));
        let Moments { m, v } = &self.optimizer.moments;
        let none = Default::default();
        self.checkpoints.save(&self.state, |dir| {
            save_safetensors(dir.join(WEIGHTS), trained, &none)?;
            save_safetensors(dir.join(MOMENTS), [("m", m), ("v", v)], &none)?;
            Ok(())
        })
    }

    /// When the GPU's memory ran out: how much the step takes, and what would fit.
    fn short_of_memory(&self, error: Error, network: &pheye_model::Config, batch: &Batch) -> Error {
        let Some(&GpuError::OutOfMemory { wanted, free, total }) = error.gpu() else { return error };
        let load = Load {
            pictures: batch.pictures.len(),
            tokens: batch.sequences.iter().map(|s| s.ids.len()).sum(),
            recompute: self.config.train.recompute,
            element: 2,
        };
        let (Ok(memory), Ok(fits)) = (network.memory(load), network.fitting(load, total)) else {
            return error;
        };
        let Load { pictures, tokens, .. } = load;
        Error::Memory { wanted, free, total, pictures, tokens, estimate: memory.total(), fits }
    }

    fn not_finite(&self, what: &'static str, value: f64, step: u64, pictures: Vec<String>) -> Error {
        let last = self.checkpoints.latest().ok().flatten().map(|loaded| loaded.path);
        Error::NotFinite { what, value, step, pictures, last }
    }
}
