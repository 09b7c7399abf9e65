//! A run is one TOML file. Every key has a place here, and any other key is an error.
//!
//! Paths are relative to the file's own folder, so that a run does not depend on where it is started.

use std::path::{Path, PathBuf};

use pheye_data::{Content, OnBroken, Prefetch};
use pheye_files::{CONFIG_LIMIT, Kind, quoted};
use pheye_model::Recompute;
use pheye_optim::{AdamWConfig, Schedule, ScheduleKind};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, config_error};

/// What is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Answers to questions about images: the whole of Pheye.
    Pheye,
    /// A vision encoder alone, by matching images and captions.
    Contrastive,
    /// A language model alone, by predicting the next token.
    NextToken,
}

impl Task {
    /// Its name in a config.
    pub fn name(self) -> &'static str {
        match self {
            Task::Pheye => "pheye",
            Task::Contrastive => "contrastive",
            Task::NextToken => "next-token",
        }
    }
}

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is learnt.
    pub task: Task,
    /// The network.
    pub model: ModelConfig,
    /// What it learns from.
    pub data: DataConfig,
    /// How it takes a step.
    #[serde(default)]
    pub optim: OptimConfig,
    /// How long it runs, and what it leaves behind.
    pub train: TrainConfig,
    /// How it is measured.
    #[serde(default)]
    pub eval: EvalConfig,
    /// The folder that relative paths start from.
    #[serde(skip)]
    pub base: PathBuf,
}

/// `[model]`: the network, and the folders it comes from and goes to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// A network by name, such as `nano` or `x2-448`.
    pub preset: Option<String>,
    /// Parts of the network that differ from the preset, or all of it: `[model.config]` in the words of the
    /// network's own config file.
    pub config: toml::Table,
    /// The frozen vision tower: a CLIP model's folder as on the hub (`config.json` and its weights), whose sizes then
    /// replace the preset's, or a file of weights.
    pub encoder: Option<PathBuf>,
    /// The frozen language model: a Phi model's folder as on the hub, whose sizes then replace the preset's, or a file
    /// of weights.
    pub decoder: Option<PathBuf>,
    /// The `tokenizer.json`.
    pub tokenizer: Option<PathBuf>,
    /// Folder of a Pheye model to go on from, instead of preset, config and backbones.
    pub init: Option<PathBuf>,
    /// Whether frozen weights are kept in bf16 instead of f32.
    pub frozen_bf16: bool,
    /// Folder the finished model is written to.
    pub out: Option<PathBuf>,
}

/// `[data]`: manifests, and how they become batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Manifests to train on: a `.jsonl` file, a folder or a `.zip` that holds `manifest.jsonl`.
    pub train: Vec<PathBuf>,
    /// How often each of `train` is seen in an epoch; once when absent.
    pub weights: Vec<f64>,
    /// Manifests to measure on.
    pub test: Vec<PathBuf>,
    /// What of the data is learnt; by default what the task needs.
    pub content: Option<Content>,
    /// Questions taken of each image each time it is seen; all when absent.
    pub questions: Option<usize>,
    /// Random changes to images: `hflip`, `vflip`, `rot90`, `shift:N` (pixels).
    pub augment: Vec<String>,
    /// Longest sequence in tokens, at most the decoder's context, which it is when absent.
    pub max_tokens: Option<usize>,
    /// MiB of decoded images kept in memory.
    pub cache_mib: usize,
    /// Batches built ahead of the one being trained on, at most 1024; 0 builds them in turn.
    pub prefetch: usize,
    /// Whether a broken image or text stops the run, or is left out, named and counted.
    pub on_broken: OnBroken,
}

impl Default for DataConfig {
    fn default() -> Self {
        DataConfig {
            train: Vec::new(),
            weights: Vec::new(),
            test: Vec::new(),
            content: None,
            questions: None,
            augment: Vec::new(),
            max_tokens: None,
            cache_mib: 256,
            prefetch: 2,
            on_broken: OnBroken::Stop,
        }
    }
}

/// `[optim]`: the learning rate and AdamW.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimConfig {
    /// Highest learning rate.
    pub lr: f64,
    /// Learning rate at the end of the cosine.
    pub final_lr: f64,
    /// `cosine` or `constant`.
    pub schedule: ScheduleKind,
    /// Steps over which the learning rate rises from 0.
    pub warmup: u64,
    /// Decay of AdamW's moments.
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest norm of the gradient; not clipped when absent.
    pub clip: Option<f64>,
}

impl Default for OptimConfig {
    fn default() -> Self {
        let AdamWConfig { betas, eps, weight_decay } = AdamWConfig::default();
        let Schedule { lr, final_lr, warmup, kind } = Schedule::cosine(2e-4);
        OptimConfig { lr, final_lr, schedule: kind, warmup, betas, eps, weight_decay, clip: None }
    }
}

impl OptimConfig {
    /// The learning rate over the run.
    pub fn schedule(&self) -> Schedule {
        Schedule { lr: self.lr, final_lr: self.final_lr, warmup: self.warmup, kind: self.schedule }
    }

    /// AdamW's hyper-parameters.
    pub fn adamw(&self) -> AdamWConfig {
        AdamWConfig { betas: self.betas, eps: self.eps, weight_decay: self.weight_decay }
    }
}

/// `[train]`: the length of the run, its randomness, its checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Length in optimizer steps; this or `epochs`.
    pub steps: Option<u64>,
    /// Length in passes over the data.
    pub epochs: Option<f64>,
    /// Images of one forward pass (texts, when there are no images).
    pub batch: usize,
    /// Forward passes of one step.
    pub accumulation: usize,
    /// Where all randomness comes from.
    pub seed: u64,
    /// Share of LoRA inputs dropped.
    pub lora_dropout: f64,
    /// Names of the trained parameters, with `*` and `?`; by default what the task trains.
    pub trainable: Vec<String>,
    /// Layers that backward recomputes instead of keeping what they saved: `{ vision = 32, text = 24 }` is all.
    pub recompute: Recompute,
    /// Steps between checkpoints; 0 saves at the end only.
    pub checkpoint_every: u64,
    /// Checkpoints kept.
    pub keep: usize,
    /// Folder of the run: checkpoints and metrics.
    pub out: PathBuf,
    /// Whether TensorBoard events are written beside the JSON lines.
    pub tensorboard: bool,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            steps: None,
            epochs: None,
            batch: 16,
            accumulation: 1,
            seed: 0,
            lora_dropout: 0.05,
            trainable: Vec::new(),
            recompute: Recompute::default(),
            checkpoint_every: 500,
            keep: 2,
            out: PathBuf::from("run"),
            tensorboard: true,
        }
    }
}

/// `[eval]`: measuring on the test manifests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// Questions of a measurement; all when absent.
    pub questions: Option<usize>,
    /// Images of one forward pass; `train.batch` when absent.
    pub batch: Option<usize>,
    /// Answered images to show at the end.
    pub show: usize,
}

/// Keys that may differ when a run is resumed: they change no bit of what is learnt.
const FREE: &[&str] = &[
    "data.cache_mib",
    "data.prefetch",
    "data.test",
    "eval.*",
    "model.out",
    "train.checkpoint_every",
    "train.keep",
    "train.out",
    "train.tensorboard",
];

/// Samples of one forward pass, far more than fit into memory with any model.
const BATCH: usize = 1 << 16;
/// Samples of a step.
const STEP_SAMPLES: usize = 1 << 24;
/// Steps and epochs of a run: samples are counted in 64 bits.
const STEPS: u64 = 1_000_000_000_000;
const EPOCHS: f64 = 1e9;
/// MiB whose bytes can be counted, and more than any machine has.
const CACHE_MIB: usize = 1 << 24;

impl Config {
    /// Reads a config file.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::UnknownKey`], and [`Error::Config`] for a fault of syntax, type or range; the last two
    /// name file, line and key.
    pub fn load(path: impl AsRef<Path>) -> Result<Config> {
        let path = path.as_ref();
        let text = pheye_files::read_text(path, Kind::Any, CONFIG_LIMIT).map_err(|e| Error::read(path, e))?;
        let base = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Config::parse(&text, path, base)
    }

    /// Reads the text of a config; `path` stands for it in errors.
    ///
    /// # Errors
    /// As [`Config::load`], except for [`Error::Read`].
    pub fn parse(text: &str, path: &Path, base: PathBuf) -> Result<Config> {
        let mut config: Config = toml::from_str(text).map_err(|e| config_error::explain(e, text, path))?;
        config.base = base;
        if let Some((key, message)) = config.fault() {
            return Err(config_error::fault(key, message, text, path));
        }
        if config.model.init.is_none() {
            let network = config.network();
            network.map_err(|e| config_error::network(e, &config.model.config, text, path))?;
        }
        Ok(config)
    }

    /// `path`, seen from the config file.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// `path`, seen from the config file; it is the value of `key`, without which the task cannot start.
    ///
    /// # Errors
    /// [`Error::Needed`] without a path.
    pub fn needed(&self, key: &'static str, path: &Option<PathBuf>) -> Result<PathBuf> {
        path.as_ref().map(|path| self.resolve(path)).ok_or(Error::Needed { key, task: self.task })
    }

    /// The shape of the network: that of the model to go on from, else the preset, over it the sizes of backbones that
    /// are folders, over all `model.config`.
    ///
    /// # Errors
    /// A preset or key that does not exist, a value of the wrong type, a model that cannot be read.
    pub fn network(&self) -> Result<pheye_model::Config> {
        let m = &self.model;
        if let Some(init) = &m.init {
            return Ok(pheye_model::Config::load(&self.resolve(init))?);
        }
        let preset = match &m.preset {
            None => pheye_model::Config::default(),
            Some(name) => {
                pheye_model::Config::preset(name).ok_or_else(|| Error::Preset { name: name.clone() })?
            }
        };
        let folder = |path: &Option<PathBuf>| path.as_ref().map(|p| self.resolve(p));
        let (vision, text) = (folder(&m.encoder), folder(&m.decoder));
        let network = preset.with_backbones(vision.as_deref(), text.as_deref())?;
        let mut value = serde_json::to_value(network)?;
        overlay(&mut value, serde_json::to_value(&m.config)?);
        serde_json::from_value(value).map_err(|e| Error::Network { message: e.to_string() })
    }

    /// The config as recorded in checkpoints.
    ///
    /// # Errors
    /// None for a config that was read.
    pub fn echo(&self) -> Result<serde_json::Value> {
        Ok(serde_json::to_value(self)?)
    }

    /// The keys in which a run recorded as `echo` differs from this one and that matter, each with both values.
    ///
    /// # Errors
    /// When [`Config::echo`] fails.
    pub fn differences(&self, echo: &serde_json::Value) -> Result<Vec<String>> {
        let (mut then, mut now) = (Vec::new(), Vec::new());
        flatten("", echo, &mut then);
        flatten("", &self.echo()?, &mut now);
        let value = |list: &[(String, String)], key: &str| {
            list.iter().find(|(k, _)| k == key).map_or("absent".to_string(), |(_, v)| v.clone())
        };
        let mut keys: Vec<&String> = then.iter().chain(&now).map(|(k, _)| k).collect();
        keys.sort();
        keys.dedup();
        let matters = |key: &&String| !FREE.iter().any(|free| crate::matches(free, key));
        let both = |key: &String| (value(&then, key), value(&now, key));
        let differs = |key: &String| {
            Some(both(key)).filter(|(a, b)| a != b).map(|(a, b)| quoted(&format!("{key}: {a} → {b}")))
        };
        Ok(keys.into_iter().filter(matters).filter_map(differs).collect())
    }

    /// The first value out of its range, and why.
    fn fault(&self) -> Option<(&'static str, String)> {
        let (data, train) = (&self.data, &self.train);
        let m = &self.model;
        let alone = |given: bool| m.init.is_none() || !given;
        let init = "model.init is a whole model and does not go with this key; leave one of them out";
        let checks = [
            ("model.preset", alone(m.preset.is_some()), init),
            ("model.config", alone(!m.config.is_empty()), init),
            ("model.encoder", alone(m.encoder.is_some()), init),
            ("model.decoder", alone(m.decoder.is_some()), init),
            ("data.train", !data.train.is_empty(), "needs at least one manifest"),
            (
                "data.weights",
                data.weights.is_empty() || data.weights.len() == data.train.len(),
                "needs one weight for each manifest of data.train",
            ),
            ("data.weights", data.weights.iter().all(|w| w.is_finite() && *w > 0.0), "must be above 0"),
            ("data.questions", data.questions != Some(0), "must be at least 1"),
            ("data.max_tokens", data.max_tokens != Some(0), "must be at least 1"),
            ("data.cache_mib", data.cache_mib <= CACHE_MIB, "must be at most 16777216 (16 TiB)"),
            ("data.prefetch", data.prefetch <= Prefetch::MOST, "must be at most 1024"),
            ("train.steps", train.steps.is_some() != train.epochs.is_some(), "give either steps or epochs"),
            ("train.steps", train.steps != Some(0), "must be at least 1"),
            ("train.steps", train.steps.is_none_or(|n| n <= STEPS), "must be at most 1000000000000"),
            ("train.epochs", train.epochs.is_none_or(|e| e.is_finite() && e > 0.0), "must be above 0"),
            ("train.epochs", train.epochs.is_none_or(|e| e <= EPOCHS), "must be at most 1000000000"),
            ("train.batch", train.batch > 0, "must be at least 1"),
            ("train.batch", train.batch <= BATCH, "must be at most 65536"),
            ("train.accumulation", train.accumulation > 0, "must be at least 1"),
            (
                "train.accumulation",
                train.batch.checked_mul(train.accumulation).is_some_and(|samples| samples <= STEP_SAMPLES),
                "times train.batch must be at most 16777216",
            ),
            ("eval.batch", self.eval.batch != Some(0), "must be at least 1"),
            ("eval.batch", self.eval.batch.is_none_or(|n| n <= BATCH), "must be at most 65536"),
            ("train.lora_dropout", (0.0..1.0).contains(&train.lora_dropout), "must be from 0 to below 1"),
            ("train.keep", train.keep > 0, "must be at least 1"),
            ("optim.clip", self.optim.clip.is_none_or(|c| c > 0.0), "must be above 0"),
        ];
        if let Some((key, _, message)) = checks.into_iter().find(|(_, ok, _)| !ok) {
            return Some((key, message.to_string()));
        }
        let optim = self.optim.schedule().check().and_then(|()| self.optim.adamw().check());
        optim.err().map(|e| ("optim", e.to_string()))
    }
}

/// Lays `over` on `under`, key by key.
fn overlay(under: &mut serde_json::Value, over: serde_json::Value) {
    match (under, over) {
        (serde_json::Value::Object(under), serde_json::Value::Object(over)) => {
            for (key, value) in over {
                overlay(under.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

/// Leaves of a JSON tree with their dotted names. Lists are leaves, nulls are absent.
fn flatten(prefix: &str, value: &serde_json::Value, out: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, out);
            }
        }
        serde_json::Value::Null => {}
        leaf => out.push((prefix.to_string(), leaf.to_string())),
    }
}
