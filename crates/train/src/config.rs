//! The config of a run, a TOML file. An unknown key is an error.
//!
//! Paths are relative to the folder of the file, so that a run does not depend on the working directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pheye_data::{Content, OnBroken, SourceConfig};
use pheye_files::{CONFIG_LIMIT, Kind, quoted};
use pheye_model::Recompute;
use pheye_optim::{AdamWConfig, Schedule, ScheduleKind};
use serde::{Deserialize, Serialize};

use crate::config_error::Origin;
use crate::{Error, Result, Set};

/// The training task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Task {
    /// Answers to questions about images: trains a complete Pheye model.
    Pheye,
    /// Contrastive pretraining of a vision tower on images and captions.
    Contrastive,
    /// Next-token pretraining of a language model.
    NextToken,
    /// Answers or captions by one of the systems that Pheye is compared with (Appendix B of the paper).
    Baseline,
}

impl Task {
    /// Its name in a config.
    pub fn name(self) -> &'static str {
        match self {
            Task::Pheye => "pheye",
            Task::Contrastive => "contrastive",
            Task::NextToken => "next-token",
            Task::Baseline => "baseline",
        }
    }
}

/// The config of a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Config {
    /// The training task.
    pub task: Task,
    /// The network.
    pub model: ModelConfig,
    /// The training and test data.
    pub data: DataConfig,
    /// The optimizer and its learning-rate schedule.
    #[serde(default)]
    pub optim: OptimConfig,
    /// The length of the run and its output.
    pub train: TrainConfig,
    /// The evaluation.
    #[serde(default)]
    pub eval: EvalConfig,
    /// The folder that relative paths are resolved against.
    #[serde(skip)]
    pub base: PathBuf,
    /// The folders of the models that the config names by their names on the hub, such as `microsoft/phi-1_5`.
    #[serde(skip)]
    pub located: BTreeMap<String, PathBuf>,
}

/// A pretrained part of Pheye.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Backbone {
    /// The vision tower.
    Encoder,
    /// The language model.
    Decoder,
}

/// A language model that the task `next-token` trains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Language {
    /// Phi, the language model of Pheye.
    #[default]
    Phi,
    /// GPT-2, that of the task `baseline`.
    Gpt2,
}

/// `[model]`: the network, its backbones, and the output folder.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelConfig {
    /// A network by name, such as `nano` or `x2-448`; for the task `baseline`, such as `smallcap` or `monkey-448`.
    pub preset: Option<String>,
    /// Overrides of the preset, or the complete configuration: `[model.config]`, with the keys of
    /// `pheye.json`; for the task `baseline`, those of its `config.json`, where the backbones are `vision` and `text`.
    #[cfg_attr(feature = "schema", schemars(with = "serde_json::Map<String, serde_json::Value>"))]
    pub config: toml::Table,
    /// The language model of the task `next-token`: `phi` or `gpt2`, whose `[model.config]` has the keys of a `gpt2`
    /// configuration.
    pub language: Language,
    /// The frozen vision tower: the folder of a CLIP model as on the hub (`config.json` and weights) or its
    /// name on the hub, whose sizes then replace those of the preset, or a weights file.
    pub encoder: Option<PathBuf>,
    /// The frozen language model: the folder of a Phi model (a GPT-2 for the task `baseline`) as on the hub or its name on the hub, whose sizes
    /// then replace those of the preset, or a weights file.
    pub decoder: Option<PathBuf>,
    /// Backbones (`encoder`, `decoder`) that start from random weights, to be pretrained; `train.trainable`
    /// then selects their parameters.
    pub random: Vec<Backbone>,
    /// The `tokenizer.json`, or its folder or name on the hub; with `init` the default is its tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// The Pheye model to start from, instead of preset and backbones: its folder, the folder of a finished run, or
    /// its name on the hub. `model.config` may then set `connector.level` (new tiles start as copies of the global
    /// image's parts), `connector.cross_interval` (new blocks start at random) and `vision.patch_size` (as many patches,
    /// and kernels that see them as before).
    pub init: Option<PathBuf>,
    /// Whether frozen weights are kept in bf16 instead of f32.
    pub frozen_bf16: bool,
    /// Folder that the trained model is written to.
    pub out: Option<PathBuf>,
}

/// `[data]`: the manifests, and how batches are made from them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DataConfig {
    /// Training manifests: a `.jsonl` file, or a folder or `.zip` archive that contains `manifest.jsonl`.
    pub train: Vec<PathBuf>,
    /// How often each manifest of `train` is seen per epoch; the default is once.
    pub weights: Vec<f64>,
    /// Training data as their publishers ship them: `[[data.source]]` tables, with or without `train`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<SourceConfig>,
    /// Folder for the indices of large published files; the default is `pheye/index` in the user's folder of
    /// caches. If it cannot be written, files are indexed at each start.
    pub index: Option<PathBuf>,
    /// Test manifests.
    pub test: Vec<PathBuf>,
    /// Which texts of the data are used; the default follows from the task.
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Content>"))]
    pub content: Option<Content>,
    /// Number of questions drawn for an image each time it is seen; the default is all.
    pub questions: Option<usize>,
    /// Random augmentations of images: `hflip`, `vflip`, `rot90`, `shift:N` (up to N pixels).
    pub augment: Vec<String>,
    /// Maximum sequence length in tokens; the default and upper limit is the context length of the decoder.
    pub max_tokens: Option<usize>,
    /// Size of the cache of decoded images in MiB.
    pub cache_mib: usize,
    /// Size of the cache of image features in MiB, for runs on the CPU in which no part of the vision tower is trained
    /// and images are not augmented: each image is then encoded once; 0 encodes it anew each time.
    pub features_mib: usize,
    /// Number of batches prepared in advance by a thread, at most 1024; 0 prepares them without a thread.
    pub prefetch: usize,
    /// Whether an unusable image or text stops the run, or is skipped, reported and counted.
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::OnBroken"))]
    pub on_broken: OnBroken,
}

impl Default for DataConfig {
    fn default() -> Self {
        DataConfig {
            train: Vec::new(),
            weights: Vec::new(),
            source: Vec::new(),
            index: None,
            test: Vec::new(),
            content: None,
            questions: None,
            augment: Vec::new(),
            max_tokens: None,
            cache_mib: 256,
            features_mib: 1024,
            prefetch: 2,
            on_broken: OnBroken::Stop,
        }
    }
}

/// `[optim]`: the learning-rate schedule and AdamW.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OptimConfig {
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end of the cosine.
    pub final_lr: f64,
    /// `cosine` or `constant`.
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::ScheduleKind"))]
    pub schedule: ScheduleKind,
    /// Warmup steps, over which the learning rate rises linearly from 0.
    pub warmup: u64,
    /// β₁ and β₂, the decay rates of AdamW's moments.
    pub betas: [f64; 2],
    /// AdamW's ε.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Maximum norm of the gradient; by default the gradient is not clipped.
    pub clip: Option<f64>,
    /// Shares of the learning rate for groups of parameters: `[[optim.share]]` tables. The first that selects a
    /// parameter counts; all others have the whole rate. The task `baseline` gives the tower a tenth if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub share: Vec<ShareConfig>,
}

/// An `[[optim.share]]` table: the share of the learning rate for a group of parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShareConfig {
    /// Glob patterns (`*`, `?`) for the names of the parameters, with `!` before a pattern for names to leave out.
    pub params: Vec<String>,
    /// The share of the rate, such as 0.1; weight decay, a multiple of the rate, has the same share.
    pub share: f64,
}

impl Default for OptimConfig {
    fn default() -> Self {
        let AdamWConfig { betas, eps, weight_decay } = AdamWConfig::default();
        let Schedule { lr, final_lr, warmup, kind } = Schedule::cosine(2e-4);
        OptimConfig {
            lr,
            final_lr,
            schedule: kind,
            warmup,
            betas,
            eps,
            weight_decay,
            clip: None,
            share: Vec::new(),
        }
    }
}

impl OptimConfig {
    /// The learning-rate schedule.
    pub fn schedule(&self) -> Schedule {
        Schedule { lr: self.lr, final_lr: self.final_lr, warmup: self.warmup, kind: self.schedule }
    }

    /// The hyperparameters of AdamW.
    pub fn adamw(&self) -> AdamWConfig {
        AdamWConfig { betas: self.betas, eps: self.eps, weight_decay: self.weight_decay }
    }
}

/// `[train]`: the length of the run, batch size, random seed and checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TrainConfig {
    /// Length in optimizer steps; exactly one of `steps` and `epochs` is given.
    pub steps: Option<u64>,
    /// Length in epochs.
    pub epochs: Option<f64>,
    /// Size of a micro-batch: images per forward pass (texts, for data without images).
    pub batch: usize,
    /// Gradient accumulation: micro-batches per optimizer step.
    pub accumulation: usize,
    /// Seed of all random numbers of the run.
    pub seed: u64,
    /// Dropout probability of the LoRA inputs.
    pub lora_dropout: f64,
    /// Glob patterns (`*`, `?`) for the names of the trained parameters, with `!` before a pattern for names to
    /// leave out; the default follows from the task.
    pub trainable: Vec<String>,
    /// Number of blocks whose activations backward recomputes, for example `{ vision = 32, text = 24 }`.
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Recompute"))]
    pub recompute: Recompute,
    /// Steps between checkpoints; 0 saves only at the end.
    pub checkpoint_every: u64,
    /// Number of checkpoints that are kept.
    pub keep: usize,
    /// Folder of the run, for checkpoints and metrics.
    pub out: PathBuf,
    /// Whether TensorBoard events are written in addition to the JSON lines.
    pub tensorboard: bool,
    /// A gradient spike, a step whose gradient norm exceeds this many times the median of the 100 steps before,
    /// is logged with its samples; 0 logs none.
    pub spike: f64,
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
            spike: 10.0,
        }
    }
}

/// `[eval]`: evaluation on the test manifests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EvalConfig {
    /// Number of questions to ask; the default is all.
    pub questions: Option<usize>,
    /// Images per forward pass; the default is `train.batch`.
    pub batch: Option<usize>,
    /// Number of answered images that are shown at the end, and in TensorBoard after each evaluation.
    pub show: usize,
    /// Steps between evaluations during training, for the task `pheye`; 0 evaluates only at the end.
    pub every: u64,
}

/// Keys that may differ when a run is resumed, because they do not influence the trained weights.
const FREE: &[&str] = &[
    "data.cache_mib",
    "data.index",
    "data.prefetch",
    "data.test",
    "eval.*",
    "model.out",
    "train.checkpoint_every",
    "train.keep",
    "train.out",
    "train.spike",
    "train.tensorboard",
];

impl Config {
    /// Reads a config file.
    ///
    /// # Errors
    /// Returns [`Error::Read`] if the file cannot be read, [`Error::UnknownKey`] for an unknown key, and
    /// [`Error::Config`] for a wrong syntax, type or range. The last two name file, line and key.
    pub fn load(path: impl AsRef<Path>) -> Result<Config> {
        Config::load_with(path, &[])
    }

    /// Reads a config file and replaces the values of `sets`.
    ///
    /// # Errors
    /// Returns the errors of [`Config::load`]. Those about a value of `sets` name its option, `--set KEY`,
    /// instead of file and line.
    pub fn load_with(path: impl AsRef<Path>, sets: &[Set]) -> Result<Config> {
        let path = path.as_ref();
        let text = pheye_files::read_text(path, Kind::Any, CONFIG_LIMIT).map_err(|e| Error::read(path, e))?;
        let base = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Config::parse_with(Origin { text: &text, path, sets }, base)
    }

    /// Parses the text of a config. `path` is the name of the file in errors; relative paths are resolved
    /// against `base`.
    ///
    /// # Errors
    /// Returns the errors of [`Config::load`], except [`Error::Read`].
    pub fn parse(text: &str, path: &Path, base: PathBuf) -> Result<Config> {
        Config::parse_with(Origin { text, path, sets: &[] }, base)
    }

    fn parse_with(origin: Origin, base: PathBuf) -> Result<Config> {
        let mut config: Config = origin.read()?;
        config.base = base;
        if let Some((key, message)) = config.fault() {
            return Err(origin.fault(key, message));
        }
        for (i, source) in config.data.source.iter().enumerate() {
            if let Some((key, message)) = source.fault() {
                return Err(origin.in_table("data.source", i, key, message));
            }
        }
        if config.model.init.is_none() {
            config.shape().map_err(|e| origin.network(e, &config))?;
        }
        Ok(config)
    }

    /// Resolves `path` against the folder of the config file.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// The config as JSON, as it is recorded in checkpoints.
    ///
    /// # Errors
    /// Does not fail for a config that was parsed.
    pub fn echo(&self) -> Result<serde_json::Value> {
        Ok(serde_json::to_value(self)?)
    }

    /// The keys that differ between a recorded config and this one, each with both values. Keys that may
    /// change on resume are left out.
    ///
    /// # Errors
    /// Returns an error if [`Config::echo`] fails.
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
}

/// Collects the leaves of a JSON tree with their dotted names. Lists count as leaves, except those of tables;
/// nulls are left out.
pub(crate) fn flatten(prefix: &str, value: &serde_json::Value, out: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, out);
            }
        }
        serde_json::Value::Null => {}
        serde_json::Value::Array(list) if !list.is_empty() && list.iter().all(|v| v.is_object()) => {
            list.iter().enumerate().for_each(|(i, value)| flatten(&format!("{prefix}[{i}]"), value, out));
        }
        leaf => out.push((prefix.to_string(), leaf.to_string())),
    }
}
