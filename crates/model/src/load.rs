//! Loads and saves models in folders, in this project's layout (`pheye.json`, `model.safetensors`,
//! `tokenizer.json`) or the released one (`config.json`, `checkpoint.pt`, the backbones' configurations).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pheye_files::quoted;
use pheye_ops::RandomInit;
use pheye_tensor::Scope;
use pheye_vit::AdapterSpec;
use pheye_weights::json::{parse, read_json};
use pheye_weights::{Checkpoint, save_safetensors};
use serde_json::Value;

use crate::backbone::{self, Backbones};
use crate::json::{fault, write_json};
use crate::pheye::VIT_PREFIX;
use crate::{Config, Error, Options, Pheye, Result, names, transformers};

/// The configuration in this project's layout.
pub const CONFIG_FILE: &str = "pheye.json";
/// The weights in this project's layout.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Maps a backbone's name on the hub to its folder.
pub type FileLookup<'a> = &'a dyn Fn(&str) -> Option<PathBuf>;

/// Whether the sizes of this backbone are built in, so that a released configuration may name it without
/// providing its configuration.
pub fn is_known_backbone(name: &str) -> bool {
    [KNOWN_VISION, KNOWN_TEXT].contains(&name)
}

/// Whether `folder` holds a released Pheye configuration. The `config.json` of a backbone has no key
/// `encoder`.
pub fn is_released(folder: &Path) -> bool {
    read_json(&folder.join(RELEASED_CONFIG)).is_ok_and(|config| config.get("encoder").is_some())
}

pub(crate) const RELEASED_CONFIG: &str = "config.json";
const RELEASED_WEIGHTS: &str = "checkpoint.pt";

/// Validates the configuration read from the file `path`.
fn possible(path: &Path, config: Config) -> Result<Config> {
    config.validate().map_err(|e| fault(path, e.to_string()))?;
    Ok(config)
}

impl Config {
    /// The configuration of the model in `folder`, in either layout. A released configuration does not
    /// include the ranks of its adapters; they are read from the header of its checkpoint if there is one.
    ///
    /// # Errors
    /// When the folder holds no model, or its configuration or checkpoint is invalid.
    pub fn load(folder: &Path) -> Result<Config> {
        Config::load_named(folder, &|_| None)
    }

    /// The configuration `text` in this project's layout; `name` is the name of its file in messages.
    ///
    /// # Errors
    /// When it is invalid.
    pub fn from_text(name: &str, text: &str) -> Result<Config> {
        let path = Path::new(name);
        let value = serde_json::from_str(text).map_err(|e| fault(path, e.to_string()))?;
        possible(path, parse(path, "", value)?)
    }

    /// Like [`Config::load`]. Backbones that a released configuration names and that are not next to it are
    /// looked up with `named`.
    ///
    /// # Errors
    /// When [`Config::load`] fails.
    pub fn load_named(folder: &Path, named: FileLookup) -> Result<Config> {
        let own = folder.join(CONFIG_FILE);
        if own.exists() {
            return possible(&own, parse(&own, "", read_json(&own)?)?);
        }
        let released = folder.join(RELEASED_CONFIG);
        if !released.exists() {
            return Err(Error::NoModel { path: folder.into() });
        }
        let mut config = possible(&released, read_released(folder, &released, named)?)?;
        let weights = folder.join(RELEASED_WEIGHTS);
        if weights.exists() {
            let checkpoint = Checkpoint::open(weights)?;
            for (lora, name) in [(&mut config.lora_global, "first"), (&mut config.lora_local, "second")] {
                let a = format!("{VIT_PREFIX}.embeddings.patch_embedding.lora_A.{name}.weight");
                let stored = checkpoint.info(&a).and_then(|(shape, _)| AdapterSpec::rank_of(shape));
                lora.rank = stored.unwrap_or(lora.rank);
            }
        }
        Ok(config)
    }
}

impl Pheye {
    /// The model in `folder`, in either layout, with all parameters frozen.
    ///
    /// # Errors
    /// When the folder holds no model, or the weights do not match the configuration; all mismatches are
    /// reported together.
    pub fn load(folder: &Path, options: Options) -> Result<Pheye> {
        Pheye::load_named(folder, options, &|_| None, |_, _| ())
    }

    /// Like [`Pheye::load`]. Backbones that a released configuration names and that are not next to it are
    /// looked up with `named`. `progress` is called with the bytes loaded so far and the total.
    ///
    /// # Errors
    /// When [`Pheye::load`] fails.
    pub fn load_named(
        folder: &Path,
        options: Options,
        named: FileLookup,
        progress: impl FnMut(u64, u64),
    ) -> Result<Pheye> {
        let config = Config::load_named(folder, named)?;
        Pheye::from_checkpoint(&config, &open_weights(folder)?, options, progress)
    }

    /// The model of `config` with the weights of `checkpoint`, which has the names of this project's layout or of the
    /// released one, with all parameters frozen. `progress` is called with the bytes loaded so far and the total.
    ///
    /// # Errors
    /// When the weights do not match the configuration; all mismatches are reported together.
    pub fn from_checkpoint(
        config: &Config,
        checkpoint: &Checkpoint,
        options: Options,
        progress: impl FnMut(u64, u64),
    ) -> Result<Pheye> {
        let mut source = names::source(checkpoint, options.dtypes()).progress(progress);
        let mut model = Pheye::build(config, &mut Scope::new(&mut source, ""))?;
        source.finish()?;
        model.remarks.extend(backbone::remark(checkpoint));
        Ok(model)
    }

    /// A new model over frozen backbones: the tower from `vision`, the language model from `text`, and the
    /// parameters that Pheye trains initialized at random from `seed`. Each backbone is a file with Pheye's
    /// or the published names, or a folder as on the hub ([`Config::with_backbones`] reads its
    /// configuration); without a path it is initialized at random, to be pretrained. The text tower of a CLIP
    /// model is ignored. `progress` is called with the bytes of both that are loaded and the total.
    ///
    /// # Errors
    /// When weights do not match the configuration; all mismatches of a file are reported together.
    pub fn from_backbones(
        config: &Config,
        vision: Option<&Path>,
        text: Option<&Path>,
        seed: u64,
        options: Options,
        progress: impl FnMut(u64, u64),
    ) -> Result<Pheye> {
        let backbones = Backbones::open(vision, text)?;
        // Report mismatches before anything is read or initialized.
        backbones.build(config, options, None, |_, _| ())?;
        backbones.build(config, options, Some(seed), progress)
    }

    /// A model with all parameters initialized at random from `seed`.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn random(config: &Config, seed: u64) -> Result<Pheye> {
        Pheye::build(config, &mut Scope::new(&mut RandomInit::new(seed), ""))
    }

    /// Writes the model to `folder` in this project's layout. Each file is replaced only when its new version
    /// is complete. The weights are a single file of any size, because only one file can be replaced
    /// atomically ([`crate::Conversion`] writes shards).
    ///
    /// # Errors
    /// When writing fails, for example because the disk is full.
    pub fn save(&mut self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.into(), source })?;
        let params = self.params_mut();
        let tensors = params.iter().map(|p| (p.name.as_str(), &p.value));
        save_safetensors(folder.join(WEIGHTS_FILE), tensors, &BTreeMap::new())?;
        write_json(&folder.join(CONFIG_FILE), &self.config)
    }
}

/// The weights of the model in `folder`, in either layout.
pub(crate) fn open_weights(folder: &Path) -> Result<Checkpoint> {
    let own = folder.join(CONFIG_FILE).exists();
    if own { backbone::open(folder) } else { Ok(Checkpoint::open(folder.join(RELEASED_WEIGHTS))?) }
}

/// The vision or text part of a backbone. Its name is a folder next to the released configuration, or one
/// that `named` resolves.
fn backbone(
    folder: &Path,
    file: &Path,
    key: &str,
    released: &Value,
    named: FileLookup,
) -> Result<(PathBuf, Value)> {
    let why = |why: String| fault(file, why);
    let name = released.get(key).and_then(Value::as_str);
    let name = name.ok_or_else(|| why(format!("`{key}` is missing, or not the name of a backbone")))?;
    let beside = folder.join(name).join("config.json");
    let path = if beside.exists() { beside } else { named(name).map_or(beside, |f| f.join("config.json")) };
    if !path.exists() {
        let beside = quoted(&path.to_string_lossy());
        return Err(why(format!("`{key}` is `{}`, but there is no {beside}", quoted(name))));
    }
    let value = read_json(&path)?;
    Ok((path, value))
}

fn read_released(folder: &Path, file: &Path, named: FileLookup) -> Result<Config> {
    let released = read_json(file)?;
    let connector = transformers::connector(file, &released)?;
    let vision = match released.get("encoder").and_then(Value::as_str) {
        Some(KNOWN_VISION) => pheye_vit::Config::h14(),
        _ => {
            let (path, value) = backbone(folder, file, "encoder", &released, named)?;
            transformers::tower(&path, &value)?
        }
    };
    let text = match released.get("decoder").and_then(Value::as_str) {
        Some(KNOWN_TEXT) => pheye_phi::Config::default(),
        _ => {
            let (path, value) = backbone(folder, file, "decoder", &released, named)?;
            let text = transformers::text(&path, &value)?;
            if text.tied {
                let why = "`tie_word_embeddings` is true, but a released checkpoint holds both matrices";
                return Err(fault(&path, why.to_owned()));
            }
            text.config
        }
    };
    Ok(Config { vision, text, connector, ..Config::default() })
}

/// Backbones whose sizes are known without their configuration files.
const KNOWN_VISION: &str = "apple/DFN5B-CLIP-ViT-H-14";
const KNOWN_TEXT: &str = "microsoft/phi-1_5";
