//! The state of a run: its network, optimizer, progress and checkpoints.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pheye_data::{Batch, Loader, Mixture, Prefetch};
use pheye_files::Kind;
use pheye_model::{Loss, QueuedLoss, StepShape};
use pheye_ops::adamw::Moments;
use pheye_ops::lora::Dropout;
use pheye_ops::{Cx, Graphs, PendingTensor, Uploads};
use pheye_optim::Optimizer;
use pheye_tensor::{DType, Device, GpuError};
use pheye_weights::{Checkpoint, save_safetensors};

use crate::checkpoint::Loaded;
use crate::features::Features;
use crate::inputs::{self, Changed, IMAGES};
use crate::learner::Learner;
use crate::lock::Lock;
use crate::pattern::selects;
use crate::{
    Checkpoints, Config, Error, Evaluate, Evaluation, Event, Metrics, Outcome, Result, Start, State,
};

const WEIGHTS: &str = "trained.safetensors";
const MOMENTS: &str = "moments.safetensors";
/// Maximum number of reasons for skipped samples that are kept.
const REASONS: usize = 5;

/// The network of a run, its optimizer, its progress, and its checkpoints.
pub(crate) struct Run<'a> {
    config: &'a Config,
    pub(crate) learner: Learner,
    pub(crate) optimizer: Optimizer,
    pub(crate) state: State,
    checkpoints: Checkpoints,
    /// The fingerprint of each image.
    images: Vec<u32>,
    graphs: Graphs,
    ahead: Uploads,
    features: Option<Features>,
    lock: Lock,
    /// Time that this thread has waited for batches since the last step.
    pub(crate) waited: Duration,
}

/// What to report about the checkpoint that a run resumes from.
#[derive(Debug, Default)]
pub(crate) struct Resumed {
    /// Why newer checkpoints were skipped.
    pub(crate) passed_over: Vec<String>,
    /// Changes since the checkpoint that do not prevent resuming.
    pub(crate) warnings: Vec<String>,
}

/// Prepares batches and uploads their pixels to the device.
pub(crate) struct Source {
    pub(crate) batches: Prefetch,
    ready: Option<Result<Ready>>,
    epoch: u64,
}

impl Source {
    /// The batches of `loader` from `position` on; at most `ahead` batches are prepared in advance.
    pub(crate) fn new(loader: Arc<Loader>, position: u64, ahead: usize) -> Source {
        let epoch = loader.mixture().epoch_len();
        Source { batches: Prefetch::new(loader, position, ahead), ready: None, epoch }
    }
}

/// A batch that has been fetched, with its pixels being uploaded.
struct Ready {
    batch: Batch,
    pixels: Option<PendingTensor>,
    /// Position of the first sample after this batch.
    after: u64,
}

/// The result of the forward and backward passes of a step.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) loss: Loss,
    /// The names of the images, or the positions of the texts.
    pub(crate) names: Vec<String>,
    /// Position of the first sample of the next step.
    position: u64,
    /// Why samples were skipped.
    skipped: Vec<String>,
}

impl<'a> Run<'a> {
    /// A run of `config` before its first step. `progress` receives the number of bytes of weights loaded so far and
    /// their total.
    pub(crate) fn new(
        cx: &Cx,
        config: &'a Config,
        out: &Path,
        progress: impl FnMut(u64, u64),
    ) -> Result<Run<'a>> {
        let mut learner = Learner::new(config, progress)?;
        let table = learner.choose(&config.train.trainable)?;
        learner.set_recompute(config.train.recompute);
        if table.is_empty() {
            return Err(Error::NothingTrained { patterns: config.train.trainable.clone() });
        }
        let mut optimizer = Optimizer::new(table, config.optim.adamw())?;
        for (i, group) in config.optim.share.iter().enumerate() {
            if !optimizer.grads.table.entries().iter().any(|(name, _)| selects(&group.params, name)) {
                return Err(Error::NoShare { table: i, patterns: group.params.clone() });
            }
        }
        optimizer.set_shares(|name| learner.share(&config.optim.share, name))?;
        let lock = Lock::take(out)?;
        let checkpoints = Checkpoints::open(out.join("checkpoints"), config.train.keep)?;
        let device = match &cx.device {
            Device::Cpu => format!("cpu with {}", pheye_cpu::par::instruction_set()),
            gpu => gpu.to_string(),
        };
        let state = State { config: config.echo()?, device, ..State::default() };
        let (graphs, ahead) = (Graphs::default(), Uploads::default());
        let images = Vec::new();
        let features = Features::new(config, &learner, &cx.device);
        let waited = Duration::ZERO;
        Ok(Run {
            config,
            learner,
            optimizer,
            state,
            checkpoints,
            images,
            graphs,
            ahead,
            features,
            lock,
            waited,
        })
    }

    /// Starts the run, or resumes it from the last undamaged checkpoint. Returns what to report about that
    /// checkpoint, or `None` without one.
    pub(crate) fn start(&mut self, start: Start, out: &Path, mixture: &Mixture) -> Result<Option<Resumed>> {
        if start == Start::New && !self.checkpoints.steps()?.is_empty() {
            return Err(Error::RunExists { path: out.into() });
        }
        // Configs are compared first, before gigabytes of backbones are read.
        let loaded = match start {
            Start::Resume => self.checkpoints.resume(self.config)?,
            Start::New | Start::Over => None,
        };
        self.state.inputs = inputs::files(self.config, mixture)?;
        self.images = mixture.prints()?;
        if start == Start::Over {
            self.checkpoints.clear()?;
        }
        loaded.map(|loaded| self.resume(loaded, mixture)).transpose()
    }

    fn resume(&mut self, loaded: Loaded, mixture: &Mixture) -> Result<Resumed> {
        let Loaded { path, state, skipped } = loaded;
        let warnings = self.compare(&path, &state, mixture)?;
        let weights = Checkpoint::open(path.join(WEIGHTS))?;
        for param in self.learner.params_mut() {
            if param.is_trained() {
                param.value = weights.tensor(&param.name, DType::F32)?;
            }
        }
        let moments = Checkpoint::open(path.join(MOMENTS))?;
        let moments = Moments { m: moments.tensor("m", DType::F32)?, v: moments.tensor("v", DType::F32)? };
        self.optimizer.restore(moments, state.step)?;
        let now = std::mem::take(&mut self.state);
        self.state = State { config: now.config, device: now.device, inputs: now.inputs, ..state };
        self.checkpoints.prune(self.state.step)?;
        Ok(Resumed { passed_over: skipped, warnings })
    }

    /// Compares the files that the run reads with those recorded in the checkpoint `path`. Returns the
    /// changes that do not prevent resuming, as warnings.
    fn compare(&self, path: &Path, state: &State, mixture: &Mixture) -> Result<Vec<String>> {
        let mut changes = inputs::changes(&state.inputs, &self.state.inputs);
        let mut warnings = Vec::new();
        if changes.is_empty() {
            let then = images(&path.join(IMAGES))?;
            let Changed { used, unused } =
                inputs::changed_images(mixture, &then, &self.images, state.samples);
            changes = used;
            let unused = unused.into_iter().map(|line| format!("{line}; the run had not used it yet"));
            warnings.extend(unused);
        }
        if !changes.is_empty() {
            return Err(Error::OtherFiles { path: path.into(), changes });
        }
        if state.device != self.state.device {
            warnings.push(format!(
                "the checkpoint was computed on {}, this is {}: bits will differ from those of an unbroken run",
                pheye_files::quoted(&state.device),
                self.state.device
            ));
        }
        Ok(warnings)
    }

    /// Moves the parameters and the optimizer to the device of `cx`.
    pub(crate) fn move_to(&mut self, cx: &Cx) -> Result<()> {
        match self.learner.move_to(&cx.device, &self.optimizer.grads.table)? {
            Some(masters) => Ok(self.optimizer.move_to(cx, masters)?),
            None => Ok(()),
        }
    }

    /// Runs forward and backward of all micro-batches of the next step. The next micro-batch is fetched in
    /// advance, except after the last one of a run of `total` steps. A micro-batch without target tokens
    /// contributes nothing; if no micro-batch of the step has any, the step continues with the samples after
    /// them.
    pub(crate) fn take(
        &mut self,
        cx: &Cx,
        source: &mut Source,
        total: u64,
        on: &mut impl FnMut(Event),
    ) -> Result<Taken> {
        let mut taken = Taken { position: self.state.samples, ..Taken::default() };
        while taken.loss.tokens == 0 {
            let samples = taken.position - self.state.samples;
            // Any range of twice as many samples as an epoch contains a complete epoch.
            if samples >= source.epoch.saturating_mul(2) {
                let first = taken.skipped.into_iter().next();
                let first =
                    first.unwrap_or_else(|| "texts of one token, of which nothing can be learnt".into());
                return Err(Error::NothingUsable { samples, first });
            }
            for micro in 0..self.config.train.accumulation as u64 {
                self.pass(cx, source, total, micro, &mut taken, on)?;
            }
        }
        if taken.names.is_empty() {
            taken.names.push(format!("texts {} to {} of the order", self.state.samples, taken.position));
        }
        Ok(taken)
    }

    fn pass(
        &mut self,
        cx: &Cx,
        source: &mut Source,
        total: u64,
        micro: u64,
        taken: &mut Taken,
        on: &mut impl FnMut(Event),
    ) -> Result<()> {
        let Ready { batch, pixels, after } = match source.ready.take() {
            Some(ready) => ready?,
            None => self.fetch(cx, &mut source.batches)?,
        };
        taken.position = after;
        for why in &batch.skipped {
            taken.skipped.push(why.clone());
            on(Event::Skipped { why, total: self.state.skipped + taken.skipped.len() as u64 });
        }
        if !self.learner.learns(&batch) {
            return Ok(());
        }
        let accumulation = self.config.train.accumulation as u64;
        let queued = self.learn(cx, &batch, pixels, self.state.step * accumulation + micro);
        // Prepare the next batch while the GPU computes this one.
        if self.state.step + 1 < total || micro + 1 < accumulation {
            source.ready = Some(self.fetch(cx, &mut source.batches));
        }
        let part = queued.and_then(|queued| Ok(queued.read()?));
        let part = part.map_err(|e| self.short_of_memory(e, &batch))?;
        taken.loss.sum += part.sum;
        taken.loss.tokens += part.tokens;
        taken.names.extend(batch.images.into_iter().map(|p| p.name));
        Ok(())
    }

    /// Fetches the next batch and starts to upload its pixels.
    fn fetch(&mut self, cx: &Cx, batches: &mut Prefetch) -> Result<Ready> {
        let asked = Instant::now();
        let batch = batches.next_batch();
        self.waited += asked.elapsed();
        let batch = batch?;
        let wanted = self.features.is_none() && self.learner.learns(&batch);
        let pixels = if wanted { self.learner.pixels(&batch)? } else { None };
        let pixels = pixels.map(|pixels| self.ahead.upload(cx, &pixels)).transpose()?;
        Ok(Ready { batch, pixels, after: batches.position() })
    }

    fn learn(
        &mut self,
        cx: &Cx,
        batch: &Batch,
        pixels: Option<PendingTensor>,
        rng_offset: u64,
    ) -> Result<QueuedLoss> {
        if let Some(features) = &mut self.features {
            let features = features.of(cx, &self.learner, batch)?;
            return self.learner.queue_features(cx, batch, &features, &mut self.optimizer.grads);
        }
        let c = &self.config.train;
        let dropout =
            (c.lora_dropout > 0.0).then_some(Dropout { p: c.lora_dropout as f32, seed: c.seed, rng_offset });
        let pixels = pixels.map(PendingTensor::join).transpose()?;
        self.learner.queue(cx, batch, pixels, dropout, &mut self.optimizer.grads, &mut self.graphs)
    }

    pub(crate) fn step(&mut self, cx: &Cx, lr: f64, tokens: u64) -> Result<f64> {
        let clip = self.config.optim.clip;
        Ok(self.optimizer.apply(cx, &mut self.learner.params_mut(), lr, tokens, clip)?)
    }

    /// Updates the counters after a step, and returns the number of its samples.
    pub(crate) fn advance(&mut self, taken: Taken) -> u64 {
        let samples = taken.position - self.state.samples;
        self.state.step += 1;
        self.state.samples = taken.position;
        self.state.tokens += taken.loss.tokens as u64;
        self.state.skipped += taken.skipped.len() as u64;
        let room = REASONS.saturating_sub(self.state.reasons.len());
        self.state.reasons.extend(taken.skipped.into_iter().take(room));
        samples
    }

    /// Measures the model of a run of the task `pheye`.
    pub(crate) fn evaluate(&self, cx: &Cx, evaluate: &mut Evaluate) -> Result<Evaluation> {
        let Learner::Pheye(model) = &self.learner else { return Ok(Evaluation::default()) };
        evaluate(cx, model).map_err(|source| Error::Evaluation { step: self.state.step, source })
    }

    /// Flushes `metrics` and saves a checkpoint. Only while this run holds the lock of its folder; a folder that
    /// was removed is created again.
    pub(crate) fn save(&mut self, metrics: &mut Metrics) -> Result<PathBuf> {
        self.lock.check()?;
        metrics.sync()?;
        let params = self.learner.params_mut();
        let trained = params.iter().filter(|p| p.is_trained()).map(|p| (p.name.as_str(), &p.value));
        let Moments { m, v } = &self.optimizer.moments;
        let none = Default::default();
        let prints: Vec<u8> = self.images.iter().flat_map(|print| print.to_le_bytes()).collect();
        self.checkpoints.save(&self.state, |dir| {
            save_safetensors(dir.join(WEIGHTS), trained, &none)?;
            save_safetensors(dir.join(MOMENTS), [("m", m), ("v", v)], &none)?;
            let path = dir.join(IMAGES);
            std::fs::write(&path, prints).map_err(|e| Error::write(path, e))
        })
    }

    /// Saves the run because the data of the next step cannot be read, and returns the error that says so. If
    /// saving fails as well, returns `error` itself.
    pub(crate) fn halt(&mut self, error: Error, metrics: &mut Metrics, on: &mut impl FnMut(Event)) -> Error {
        let Ok(path) = self.save(metrics) else { return error };
        on(Event::Saved(&path));
        Error::Halted { step: self.state.step, path, source: Box::new(error) }
    }

    /// The outcome of the run; it is finished if there is a `model`.
    pub(crate) fn outcome(&self, model: Option<PathBuf>) -> Outcome {
        let State { step, skipped, reasons, .. } = self.state.clone();
        Outcome { step, finished: model.is_some(), model, skipped, reasons }
    }

    /// Converts an out-of-memory error of the GPU to [`Error::Memory`], with the memory of the step and
    /// settings that fit.
    fn short_of_memory(&self, error: Error, batch: &Batch) -> Error {
        let Some(&GpuError::OutOfMemory { wanted, free, total }) = error.gpu() else { return error };
        let load = StepShape {
            images: batch.images.len(),
            tokens: batch.sequences.iter().map(|s| s.ids.len()).sum(),
            recompute: self.config.train.recompute,
            element: 2,
        };
        let Learner::Pheye(model) = &self.learner else { return error };
        let network = model.config();
        let (Ok(memory), Ok(fits)) = (network.memory(load), network.fitting(load, total)) else {
            return error;
        };
        let StepShape { images, tokens, .. } = load;
        Error::Memory { wanted, free, total, images, tokens, estimate: memory.total(), fits }
    }

    pub(crate) fn not_finite(&self, what: &'static str, value: f64, step: u64, images: Vec<String>) -> Error {
        let last = self.checkpoints.latest().ok().flatten().map(|loaded| loaded.path);
        Error::NotFinite { what, value, step, images, last }
    }
}

/// Reads the image fingerprints of a checkpoint. Their number was verified together with the file's checksum.
fn images(path: &Path) -> Result<Vec<u32>> {
    let bytes = pheye_files::read(path, Kind::Regular, u64::MAX).map_err(|e| Error::read(path, e))?;
    Ok(bytes.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
}
