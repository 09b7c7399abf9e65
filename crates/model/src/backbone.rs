//! Loads CLIP and Phi as published: a folder with `config.json` and weights, in one file or in shards.

use std::cell::{Cell, RefCell};
use std::path::Path;

use pheye_files::quoted;
use pheye_ops::RandomInit;
use pheye_tensor::{DType, Init, Scope, Shape, Source, Tensor};
use pheye_weights::{Checkpoint, CheckpointSource, FOLDER_FILES, first_in};

use crate::json::{fault, read_json};
use crate::pheye::VIT_PREFIX;
use crate::{Config, Error, Options, Pheye, Result, names, transformers};

const CONFIG: &str = "config.json";
/// Our name of the output head, which tied models share with the embedding.
const HEAD: &str = "lang_encoder.lm_head.weight";
const EMBEDDING: &str = "lang_encoder.model.embed_tokens.weight";

/// The weights of a backbone: the file `path`, or those in the folder `path`.
pub(crate) fn open(path: &Path) -> Result<Checkpoint> {
    if !path.is_dir() {
        return Ok(Checkpoint::open(path)?);
    }
    match first_in(path, FOLDER_FILES) {
        Some(file) => Ok(Checkpoint::open(file)?),
        None => Err(Error::NoBackbone { path: path.into(), looked_for: FOLDER_FILES }),
    }
}

/// A remark if a common prefix was removed from the tensor names of `checkpoint`.
pub(crate) fn remark(checkpoint: &Checkpoint) -> Option<String> {
    let prefix = checkpoint.stripped_prefix()?;
    let path = checkpoint.path().display().to_string();
    Some(format!("{}: names are read without the prefix `{}`, which all have", quoted(&path), quoted(prefix)))
}

/// Whether this tensor of a complete CLIP model is outside its vision tower.
fn beside_clip(name: &str) -> bool {
    name.starts_with("text_model.")
        || ["logit_scale", "text_projection.weight", "visual_projection.weight"].contains(&name)
}

/// Whether this tensor, stored by older copies of Phi, follows from the configuration.
fn beside_phi(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
}

impl Config {
    /// Returns this configuration with the sizes of the backbones that are folders as on the hub, read from
    /// their `config.json` (its `vision_config` for a CLIP model). A backbone that is a single file changes
    /// nothing.
    ///
    /// # Errors
    /// When a folder has no `config.json` or holds another kind of model, or when a key requests something
    /// that this network does not support.
    pub fn with_backbones(mut self, vision: Option<&Path>, text: Option<&Path>) -> Result<Config> {
        if let Some(folder) = vision.filter(|path| path.is_dir()) {
            let path = folder.join(CONFIG);
            self.vision = transformers::tower(&path, &read_json(&path)?)?;
            self.vision.validate().map_err(|e| fault(&path, e.to_string()))?;
        }
        if let Some(folder) = text.filter(|path| path.is_dir()) {
            let path = folder.join(CONFIG);
            self.text = transformers::text(&path, &read_json(&path)?)?.config;
            self.text.validate().map_err(|e| fault(&path, e.to_string()))?;
        }
        Ok(self)
    }
}

/// The opened files of both backbones.
pub(crate) struct Backbones {
    vision: Checkpoint,
    text: Checkpoint,
    /// Whether the output head of the language model shares the embedding matrix.
    tied: bool,
}

impl Backbones {
    pub(crate) fn open(vision: &Path, text: &Path) -> Result<Backbones> {
        let config = text.join(CONFIG);
        let tied = config.exists() && transformers::text(&config, &read_json(&config)?)?.tied;
        Ok(Backbones { vision: open(vision)?, text: open(text)?, tied })
    }

    /// Builds the model over these backbones and initializes the parameters that Pheye trains at random.
    /// Without a seed it only checks names, types and shapes, and the model has no elements. All mismatches
    /// of a file are reported together.
    pub(crate) fn build(
        &self,
        config: &Config,
        options: Options,
        seed: Option<u64>,
        progress: impl FnMut(u64, u64),
    ) -> Result<Pheye> {
        let (mut nothing, mut random) = (Nothing, RandomInit::new(seed.unwrap_or(0)));
        let rest: &mut dyn Source = if seed.is_some() { &mut random } else { &mut nothing };
        let (progress, done) = (RefCell::new(progress), Cell::new([0; 2]));
        let (vision, text) = (self.vision(options), self.text(options));
        let all = vision.bytes() + text.bytes();
        let part = |i: usize| {
            let (progress, done) = (&progress, &done);
            move |now, _| {
                let mut parts = done.get();
                parts[i] = now;
                done.set(parts);
                progress.borrow_mut()(parts.iter().sum(), all);
            }
        };
        let (vision, text) = match seed {
            Some(_) => (vision.progress(part(1)), text.progress(part(0))),
            None => (vision.check_only(), text.check_only()),
        };
        let not_tower = |name: &str| !name.starts_with(VIT_PREFIX) || Pheye::is_pheye_param(name);
        let mut text = text.fallback(Pheye::is_pheye_param, rest);
        let mut vision = vision.fallback(not_tower, &mut text);
        let mut model = Pheye::build(config, &mut Scope::new(&mut vision, ""))?;
        vision.finish()?;
        text.finish()?;
        model.remarks.extend([&self.vision, &self.text].into_iter().filter_map(remark));
        Ok(model)
    }

    /// The tensor source for the vision tower.
    fn vision(&self, options: Options) -> CheckpointSource<'_> {
        names::source(&self.vision, options.dtypes())
            .names(names::of_vision(&self.vision))
            .allow_unused(beside_clip)
    }

    /// The tensor source for the language model.
    fn text(&self, options: Options) -> CheckpointSource<'_> {
        let (mut map, tied) = (names::of_text(&self.text), self.tied);
        let head = map.apply(HEAD);
        if tied {
            let embedding = map.apply(EMBEDDING);
            map = map.first(HEAD, &embedding);
        }
        names::source(&self.text, options.dtypes())
            .names(map)
            .allow_unused(move |name| beside_phi(name) || (tied && name == head))
    }
}

/// A source of empty tensors, for checking names and shapes only.
struct Nothing;

impl Source for Nothing {
    fn tensor(&mut self, _: &str, _: Shape, _: Init) -> Tensor {
        Tensor::zeros([0], DType::F32)
    }

    fn shape_of(&self, _: &str) -> Option<Shape> {
        None
    }
}
