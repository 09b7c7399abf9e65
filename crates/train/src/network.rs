//! The configuration of the network of a run, from presets, backbones and `[model.config]`.

use std::path::PathBuf;

use pheye_baselines::{Config as Baseline, System};
use pheye_files::quoted;
use pheye_text::PromptTemplate;

use crate::config::flatten;
use crate::{Config, Error, Language, Result, Task};

/// What data depend on in a network: how an image becomes pixels, and a text tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Side length of a tile in pixels.
    pub image_size: usize,
    /// 1 uses only the global image; L also uses L×L tiles.
    pub level: usize,
    /// Maximum number of tokens of a text.
    pub context: usize,
    /// Number of different tokens.
    pub vocab_size: usize,
    /// How a question becomes a prompt.
    pub prompt: PromptTemplate,
}

impl Config {
    /// What the data of the run depend on in its network.
    ///
    /// # Errors
    /// Returns the errors of [`Config::network`] or [`Config::baseline`].
    pub fn shape(&self) -> Result<Shape> {
        Ok(match self.task {
            Task::Baseline => {
                let c = self.baseline()?;
                Shape {
                    image_size: c.vision.image_size,
                    level: c.level,
                    context: c.context(),
                    vocab_size: c.text.vocab_size,
                    prompt: c.prompt,
                }
            }
            Task::NextToken if self.model.language == Language::Gpt2 => {
                let c = self.gpt2()?;
                // Texts have no images. Questions are asked as the systems over a GPT-2 ask them.
                let (image_size, level) = (1, 1);
                let prompt = Baseline::new(System::Llava).prompt;
                Shape { image_size, level, context: c.n_positions, vocab_size: c.vocab_size, prompt }
            }
            Task::Pheye | Task::Contrastive | Task::NextToken => {
                let c = self.network()?;
                Shape {
                    image_size: c.vision.image_size,
                    level: c.connector.level,
                    context: c.text.max_position_embeddings,
                    vocab_size: c.text.vocab_size,
                    prompt: c.prompt,
                }
            }
        })
    }

    /// The configuration of the GPT-2 that the task `next-token` trains.
    ///
    /// # Errors
    /// Returns an error if a key does not exist, or a value has the wrong type or is out of range.
    pub fn gpt2(&self) -> Result<pheye_gpt2::Config> {
        let network = |e: &dyn std::fmt::Display| Error::Network { message: e.to_string() };
        let value = serde_json::to_value(&self.model.config)?;
        let config: pheye_gpt2::Config = serde_json::from_value(value).map_err(|e| network(&e))?;
        config.validate().map_err(|e| network(&e))?;
        Ok(config)
    }

    /// The configuration of the system of the task `baseline`: that of `model.init` if it is set, otherwise the preset,
    /// overridden by the sizes of backbones that are folders, overridden by `model.config`.
    ///
    /// # Errors
    /// Returns an error if the preset or a key does not exist, a value has the wrong type or is out of range, or the
    /// configuration of a backbone cannot be read.
    pub fn baseline(&self) -> Result<Baseline> {
        let m = &self.model;
        if let Some(init) = &m.init {
            if let Some(key) = m.config.keys().next() {
                let message =
                    format!("{}: a system that starts from another keeps its configuration", quoted(key));
                return Err(Error::Network { message });
            }
            return Ok(Baseline::load(&self.model_path(init))?);
        }
        let preset = match &m.preset {
            None => None,
            Some(name) => Some(Baseline::preset(name).ok_or_else(|| Error::Preset { name: name.clone() })?),
        };
        let folder = |path: &Option<PathBuf>| path.as_ref().map(|p| self.model_path(p));
        let (vision, text) = (folder(&m.encoder), folder(&m.decoder));
        let named = preset.is_some();
        let sized = preset.unwrap_or_else(|| Baseline::new(System::Llava));
        let mut value = serde_json::to_value(sized.with_backbones(vision.as_deref(), text.as_deref())?)?;
        if !named && let Some(keys) = value.as_object_mut() {
            // Without a preset, only the sizes of the backbones are known.
            keys.retain(|key, _| key == "vision" || key == "text");
        }
        overlay(&mut value, serde_json::to_value(&m.config)?);
        let network = |e: &dyn std::fmt::Display| Error::Network { message: e.to_string() };
        let config: Baseline = serde_json::from_value(value).map_err(|e| network(&e))?;
        config.validate().map_err(|e| network(&e))?;
        Ok(config)
    }

    /// The configuration of the network: that of `model.init` if it is set, with the level and the interval of
    /// `model.config` if it has them; otherwise the preset, overridden by the sizes of backbones that are folders,
    /// overridden by `model.config`.
    ///
    /// # Errors
    /// Returns an error if the preset or a key does not exist, a value has the wrong type, or a model's
    /// configuration cannot be read.
    pub fn network(&self) -> Result<pheye_model::Config> {
        let m = &self.model;
        if let Some(init) = &m.init {
            let named = |name: &str| self.located.get(name).cloned();
            let mut network = pheye_model::Config::load_named(&self.model_path(init), &named)?;
            self.change_init(&mut network)?;
            return Ok(network);
        }
        let preset = match &m.preset {
            None => pheye_model::Config::default(),
            Some(name) => {
                pheye_model::Config::preset(name).ok_or_else(|| Error::Preset { name: name.clone() })?
            }
        };
        let folder = |path: &Option<PathBuf>| path.as_ref().map(|p| self.model_path(p));
        let (vision, text) = (folder(&m.encoder), folder(&m.decoder));
        let network = preset.with_backbones(vision.as_deref(), text.as_deref())?;
        let mut value = serde_json::to_value(network)?;
        overlay(&mut value, serde_json::to_value(&m.config)?);
        serde_json::from_value(value).map_err(|e| Error::Network { message: e.to_string() })
    }

    /// Applies `connector.level`, `connector.cross_interval` and `vision.patch_size` of `model.config`, the only keys that
    /// a model that starts from another may change. The number of patches stays.
    fn change_init(&self, network: &mut pheye_model::Config) -> Result<()> {
        let keys = serde_json::to_value(&self.model.config)?;
        let mut leaves = Vec::new();
        flatten("", &keys, &mut leaves);
        let across = network.vision.image_size / network.vision.patch_size;
        let mut patch_size = network.vision.patch_size;
        for (key, value) in &leaves {
            let connector = &mut network.connector;
            let changed = match key.as_str() {
                "connector.level" => &mut connector.level,
                "connector.cross_interval" => &mut connector.cross_interval,
                "vision.patch_size" => &mut patch_size,
                _ => {
                    let why = "with model.init, model.config may only change connector.level, \
                               connector.cross_interval and vision.patch_size";
                    return Err(Error::Network { message: format!("{}: {why}", quoted(key)) });
                }
            };
            let message = || format!("{}: it must be a positive integer", quoted(key));
            *changed = value.parse().map_err(|_| Error::Network { message: message() })?;
        }
        network.vision.patch_size = patch_size;
        network.vision.image_size = across.saturating_mul(patch_size);
        Ok(network.validate()?)
    }
}

/// Merges `over` into `under`, key by key; values of `over` win.
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
