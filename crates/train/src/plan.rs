//! What a run will take, before it starts: samples, steps, tokens, operations, memory, and time at a rate.
//!
//! The texts of the first samples are tokenized to know their lengths, and a few images are decoded to know their
//! sizes. Everything else follows from shapes.

use pheye_data::{Encode, Loader};
use pheye_model::{Counts, Flops, Pheye, StepShape, TrainedParts};
use serde::Serialize;

use crate::memory::resident;
use crate::pattern::selects;
use crate::{Config, Error, Result, Task, feed, trainer};

/// Number of samples whose texts are tokenized.
const LOOKED_AT: u64 = 2048;

/// What a run will take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Samples of an epoch.
    pub epoch: u64,
    /// Samples of the whole run.
    pub samples: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Samples of a step: `train.batch` times `train.accumulation`.
    pub step_samples: u64,
    /// Lengths of the texts.
    pub texts: Texts,
    /// Text tokens of the whole run, without image tokens.
    pub tokens: u64,
    /// Image tokens of an image, over the global image and all tiles.
    pub image_tokens: usize,
    /// Operations of a step, by part of the network.
    pub step_flops: Flops,
    /// Operations of the whole run.
    pub flops: f64,
    /// Peak memory in bytes, by purpose.
    pub memory: PlanMemory,
}

/// The lengths of texts with their prompts, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Texts {
    /// Number of samples that were tokenized; the other figures are about them.
    pub samples: u64,
    /// Mean number of tokens of a sample, over all of its texts.
    pub mean: f64,
    /// Mean number of target tokens of a sample.
    pub targets: f64,
    /// Largest number of tokens of a micro-batch.
    pub longest_batch: usize,
    /// Samples that cannot be used.
    pub unusable: u64,
}

/// Bytes by purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PlanMemory {
    /// Frozen weights.
    pub frozen: u64,
    /// Trained weights, their gradients and moments.
    pub trained: u64,
    /// What forward saves for backward, and temporaries.
    pub activations: u64,
    /// The pixels of prepared batches.
    pub data: u64,
    /// The cache of decoded images, of `data.cache_mib` at most.
    pub cache: u64,
    /// The process without the run: program, tokenizer, and the index of the data. 0 where it is not known.
    pub process: u64,
}

impl PlanMemory {
    /// The sum of all parts.
    pub fn total(&self) -> u64 {
        let parts = [self.trained, self.activations, self.data, self.cache, self.process];
        parts.iter().fold(self.frozen, |a, b| a.saturating_add(*b))
    }
}

/// Plans the run of `config`, for which `encode` turns texts into token ids; `gpu` says whether it runs on a
/// GPU.
///
/// # Errors
/// Returns [`Error::NoPlan`] for another task than `pheye`, an error if the configuration of the network or a data set cannot be read, and for the first sample
/// that cannot be used unless `data.on_broken` is `skip`.
pub fn plan(config: &Config, encode: Box<Encode>, gpu: bool) -> Result<Plan> {
    if config.task != Task::Pheye {
        return Err(Error::NoPlan { task: config.task });
    }
    let network = config.network()?;
    let patterns = &config.train.trainable;
    let default = patterns.is_empty();
    let trained = network.counts_of(|name| match default {
        true => Pheye::is_pheye_param(name),
        false => selects(patterns, name),
    })?;
    let loader = feed::loader(config, &config.shape()?, encode)?;
    let steps = trainer::steps(config, &loader);
    let step_samples = (config.train.batch as u64).saturating_mul(config.train.accumulation as u64);
    let samples = steps.saturating_mul(step_samples);
    let texts = lengths(&loader, samples, config.train.batch as u64)?;
    let element = if gpu { 2 } else { 4 };
    let images = config.train.batch;
    let load = |tokens| StepShape { images, tokens, recompute: config.train.recompute, element };
    let mean = load((texts.mean * config.train.batch as f64).round() as usize);
    let parts = TrainedParts {
        adapters: trained.lora + trained.connector > 0,
        vision: trained.vision > 0,
        cross_attention: trained.cross_attention > 0,
        text: trained.text > 0,
    };
    let micro = network.flops(mean, parts);
    let step_flops = micro.times(config.train.accumulation as u64);
    let mut memory = memory(config, &network, trained, load(texts.longest_batch), gpu)?;
    memory.process = resident().unwrap_or_default();
    memory.cache = cache(config, &loader, samples);
    Ok(Plan {
        epoch: loader.mixture().epoch_len(),
        samples,
        steps,
        step_samples,
        texts,
        tokens: (texts.mean * samples as f64).round() as u64,
        image_tokens: network.media_tokens(),
        step_flops,
        flops: step_flops.total() as f64 * steps as f64,
        memory,
    })
}

/// The lengths of the texts of the first samples.
fn lengths(loader: &Loader, samples: u64, batch: u64) -> Result<Texts> {
    let mut texts = Texts { samples: samples.min(LOOKED_AT), ..Texts::default() };
    let (mut tokens, mut targets, mut in_batch) = (0, 0, 0);
    for position in 0..texts.samples {
        if position % batch.max(1) == 0 {
            in_batch = 0;
        }
        let encoded = loader.texts(position)?;
        texts.unusable += u64::from(encoded.is_empty());
        for text in encoded {
            in_batch += text.ids.len();
            tokens += text.ids.len();
            targets += text.ids.len() - text.loss_from;
        }
        texts.longest_batch = texts.longest_batch.max(in_batch);
    }
    let each = 1.0 / texts.samples.max(1) as f64;
    (texts.mean, texts.targets) = (tokens as f64 * each, targets as f64 * each);
    Ok(texts)
}

/// The bytes that the cache of images comes to hold in a run of `samples` samples: the mean of a few images, for as
/// many images as the run sees.
fn cache(config: &Config, loader: &Loader, samples: u64) -> u64 {
    const IMAGES: u64 = 16;
    let looked_at = samples.min(IMAGES);
    // An image that cannot be decoded is the run's to report.
    let sizes: Vec<u64> = (0..looked_at).filter_map(|i| Some(loader.image_bytes(i).ok()? as u64)).collect();
    let mean = sizes.iter().sum::<u64>() / (sizes.len() as u64).max(1);
    let images = (loader.mixture().len() as u64).min(samples);
    mean.saturating_mul(images).min((config.data.cache_mib as u64) << 20)
}

fn memory(
    config: &Config,
    network: &pheye_model::Config,
    trained: Counts,
    load: StepShape,
    gpu: bool,
) -> Result<PlanMemory> {
    let frozen = network.counts()?.all() - trained.all();
    let bf16 = gpu || config.model.frozen_bf16;
    // On a GPU, trained matrices have a bf16 copy for GEMM besides their f32 masters.
    let bytes = 4 + 4 + 8 + if gpu { 2 } else { 0 };
    let side = network.vision.image_size as u64;
    let pixels = 3 * 4 * side * side * (1 + network.connector.local_tiles() as u64);
    let batches = (config.data.prefetch as u64 + 2).saturating_mul(load.images as u64);
    Ok(PlanMemory {
        frozen: if bf16 { 2 } else { 4 } * frozen,
        trained: bytes * trained.all(),
        activations: network.activations(load),
        data: pixels.saturating_mul(batches),
        ..PlanMemory::default()
    })
}
