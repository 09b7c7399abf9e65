//! Folders of systems, `config.json` and `model.safetensors`, and new systems over published backbones.
//!
//! The tensors have the names of SmallCap's checkpoints: CLIP's tower below `encoder.`, GPT-2 below
//! `decoder.transformer.`, whose linears are stored as [in, out], and the parts between them as the published modules
//! name them. Without LoRA the tower has CLIP's own names, with LoRA those of PEFT.

use std::collections::BTreeMap;
use std::path::Path;

use pheye_gpt2::Gpt2;
use pheye_model::{Options, names};
use pheye_ops::RandomInit;
use pheye_tensor::{Scope, Shape, Shapes, Source};
use pheye_vit::Vit;
use pheye_weights::json::{parse, read_json};
use pheye_weights::{
    Checkpoint, CheckpointSource, FOLDER_FILES, Stored, atomic_write, first_in, save_stored,
};
use serde_json::{Value, json};

use crate::baseline::{TEXT_PREFIX, VIT_PREFIX};
use crate::{Baseline, Config, Error, Result};

/// The name of the configuration in a folder.
pub const CONFIG_FILE: &str = "config.json";
/// The name of the weights in a folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The `model_type` of a configuration.
const MODEL_TYPE: &str = "appendix_b";

/// Whether `folder` has the configuration of one of these systems.
pub fn is_baseline(folder: &Path) -> bool {
    let config = read_json(&folder.join(CONFIG_FILE));
    config.is_ok_and(|config| config.get("model_type") == Some(&json!(MODEL_TYPE)))
}

impl Config {
    /// The configuration in `folder/config.json`.
    ///
    /// # Errors
    /// When the file cannot be read or a key is invalid; the error names it.
    pub fn load(folder: &Path) -> Result<Config> {
        let path = folder.join(CONFIG_FILE);
        let fault = |why: String| Error::Config { path: path.clone(), why };
        let mut file = read_json(&path)?;
        let Some(keys) = file.as_object_mut() else {
            return Err(fault("it must be a JSON object".to_owned()));
        };
        keys.remove("model_type");
        let mut backbone = |key: &str| keys.remove(key).ok_or_else(|| fault(format!("`{key}` is missing")));
        let (vision, text) = (backbone("vision_config")?, backbone("text_config")?);
        let vision = pheye_model::vision_config(&path, "vision_config.", &vision)?;
        let text = pheye_gpt2::Config::from_transformers(&path, "text_config.", &text)?;
        let config = Config { vision, text, ..parse(&path, "", file)? };
        config.validate().map_err(|e| fault(e.to_string()))?;
        Ok(config)
    }

    /// The contents of `config.json`.
    fn to_file(&self) -> Result<Value, serde_json::Error> {
        let mut file = serde_json::to_value(self)?;
        if let Some(keys) = file.as_object_mut() {
            for (ours, theirs, model) in
                [("vision", "vision_config", "clip_vision_model"), ("text", "text_config", "gpt2")]
            {
                let mut part = keys.remove(ours).unwrap_or_default();
                part["model_type"] = json!(model);
                keys.insert(theirs.to_owned(), part);
            }
            keys.insert("model_type".to_owned(), json!(MODEL_TYPE));
        }
        Ok(file)
    }
}

/// Where a file has the parameter that the network of `config` calls `name`.
pub fn stored(config: &Config, name: &str) -> Stored {
    let plain = config.adapters().iter().all(Option::is_none) && name.starts_with(VIT_PREFIX);
    if plain {
        return Stored::whole(name.replace(".base_layer", ""));
    }
    if !name.starts_with(TEXT_PREFIX) {
        return Stored::whole(name);
    }
    let stored = pheye_gpt2::hub::stored(name);
    Stored { transposed: stored.transposed || name.ends_with(".q_attn.weight"), ..stored }
}

impl Baseline {
    /// The system in `folder`, with all parameters frozen. `progress` is called with the bytes loaded so far and the
    /// total.
    ///
    /// # Errors
    /// When a file is missing or invalid, or the weights do not match the configuration; all mismatches are reported
    /// together.
    pub fn load(
        folder: impl AsRef<Path>,
        options: Options,
        progress: impl FnMut(u64, u64),
    ) -> Result<Baseline> {
        let folder = folder.as_ref();
        let config = Config::load(folder)?;
        let checkpoint = open(folder)?;
        let mut source = CheckpointSource::new(&checkpoint, |name| Baseline::dtype(&config, options, name))
            .stored(|name| stored(&config, name))
            .allow_unused(|name| name.ends_with(".position_ids") || pheye_gpt2::hub::is_passed_over(name))
            .progress(progress);
        let model = Baseline::build(&config, &mut Scope::new(&mut source, ""))?;
        source.finish()?;
        Ok(model)
    }

    /// A new system over backbones as on the hub: a CLIP model or its vision tower, and a GPT-2, each a folder or a file
    /// of weights. Everything else is initialized at random from `seed`, and so is a backbone without a path.
    ///
    /// # Errors
    /// When weights do not match the configuration; all mismatches of a file are reported together.
    pub fn from_backbones(
        config: &Config,
        vision: Option<&Path>,
        text: Option<&Path>,
        seed: u64,
        options: Options,
    ) -> Result<Baseline> {
        config.validate()?;
        let [vision, text] = [vision, text].map(|path| path.map(open).transpose());
        let files = Files { vision: vision?, text: text? };
        // Mismatches are reported before anything is read or initialized.
        files.build(config, options, None)?;
        files.build(config, options, Some(seed))
    }

    /// A system with all parameters initialized at random from `seed`.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn random(config: &Config, seed: u64) -> Result<Baseline> {
        Baseline::build(config, &mut Scope::new(&mut RandomInit::new(seed), ""))
    }

    /// Writes the system to `folder`, which [`Baseline::load`] reads. Each file is replaced only when its new version is
    /// complete.
    ///
    /// # Errors
    /// When writing fails, for example because the disk is full.
    pub fn save(&mut self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.into(), source })?;
        let path = folder.join(CONFIG_FILE);
        let text = self.config.to_file().and_then(|file| serde_json::to_string_pretty(&file));
        let text = text.map_err(|e| Error::Config { path: path.clone(), why: e.to_string() })?;
        let config = self.config.clone();
        let params = self.params_mut();
        let tensors = params.iter().map(|p| (stored(&config, &p.name), &p.value));
        save_stored(folder.join(WEIGHTS_FILE), tensors, &BTreeMap::new())?;
        Ok(atomic_write(path, |file| writeln!(file, "{text}"))?)
    }
}

impl Config {
    /// This configuration with the sizes of the backbones that are folders as on the hub, read from their `config.json`.
    ///
    /// # Errors
    /// When a folder has no `config.json` or holds another kind of model, or when a key requests something that this
    /// network does not support.
    pub fn with_backbones(mut self, vision: Option<&Path>, text: Option<&Path>) -> Result<Config> {
        if let Some(folder) = vision.filter(|path| path.is_dir()) {
            self.vision = pheye_model::Config::default().with_backbones(Some(folder), None)?.vision;
        }
        if let Some(folder) = text.filter(|path| path.is_dir()) {
            self.text = pheye_gpt2::Config::load(folder)?;
        }
        Ok(self)
    }
}

/// The file of weights at `path`, or the one in the folder `path`.
fn open(path: &Path) -> Result<Checkpoint> {
    let file = match path.is_dir() {
        false => path.to_owned(),
        true => {
            let missing = || Error::NoWeights { path: path.into(), looked_for: FOLDER_FILES };
            first_in(path, FOLDER_FILES).ok_or_else(missing)?
        }
    };
    Ok(Checkpoint::open(file)?)
}

/// The opened files of the backbones; a backbone without a file is initialized at random.
struct Files {
    vision: Option<Checkpoint>,
    text: Option<Checkpoint>,
}

impl Files {
    /// The system over these backbones, with everything else initialized at random. Without a seed only names, types and
    /// shapes are checked, and the system has no elements.
    fn build(&self, config: &Config, options: Options, seed: Option<u64>) -> Result<Baseline> {
        let dtype = |name: &str| Baseline::dtype(config, options, name);
        let mut random = RandomInit::new(seed.unwrap_or(0)).with_dtype(dtype);
        let mut nothing = Shapes(|_: &str, _: Shape| ());
        let rest: &mut dyn Source = if seed.is_some() { &mut random } else { &mut nothing };
        let read = |source| if seed.is_some() { source } else { CheckpointSource::check_only(source) };
        let adapters = config.adapters();
        let vit = match &self.vision {
            None => Vit::new(&mut Scope::new(&mut *rest, VIT_PREFIX), &config.vision, &adapters)?,
            Some(file) => {
                let source = names::source(file, dtype)
                    .names(names::of_vision_at(file, "encoder."))
                    .allow_unused(names::beside_tower);
                let mut source = read(source).fallback(|name| name.contains(".lora_"), &mut *rest);
                let vit = Vit::new(&mut Scope::new(&mut source, VIT_PREFIX), &config.vision, &adapters)?;
                source.finish()?;
                vit
            }
        };
        let gpt2 = match &self.text {
            None => Gpt2::new(&mut Scope::new(&mut *rest, TEXT_PREFIX), &config.text)?,
            Some(file) => {
                let mut source = read(pheye_gpt2::hub::source(file, TEXT_PREFIX, dtype));
                let gpt2 = Gpt2::new(&mut Scope::new(&mut source, TEXT_PREFIX), &config.text)?;
                source.finish()?;
                gpt2
            }
        };
        Baseline::join(config, vit, gpt2, &mut Scope::new(rest, ""))
    }
}
