//! Loads CLIP and Phi as published: a folder with `config.json` and weights, in one file or in shards.

use std::cell::{Cell, RefCell};
use std::path::Path;

use pheye_files::quoted;
use pheye_ops::RandomInit;
use pheye_tensor::{Init, Scope, Shape, Shapes, Source, Tensor};
use pheye_weights::json::read_json;
use pheye_weights::{Checkpoint, CheckpointSource, FOLDER_FILES, first_in};

use crate::json::fault;
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

/// The opened files of the backbones; a backbone without a file is initialized at random.
pub(crate) struct Backbones {
    vision: Option<Checkpoint>,
    text: Option<Checkpoint>,
    /// Whether the output head of the language model shares the embedding matrix.
    tied: bool,
}

impl Backbones {
    pub(crate) fn open(vision: Option<&Path>, text: Option<&Path>) -> Result<Backbones> {
        let config = text.map(|text| text.join(CONFIG)).filter(|path| path.exists());
        let tied = |path| Ok::<_, Error>(transformers::text(path, &read_json(path)?)?.tied);
        let tied = config.as_deref().map(tied).transpose()?.unwrap_or(false);
        Ok(Backbones { vision: vision.map(open).transpose()?, text: text.map(open).transpose()?, tied })
    }

    /// Builds the model over these backbones and initializes all other parameters at random. Without a seed it only checks names, types and shapes, and the model has no elements. All mismatches
    /// of a file are reported together.
    pub(crate) fn build(
        &self,
        config: &Config,
        options: Options,
        seed: Option<u64>,
        progress: impl FnMut(u64, u64),
    ) -> Result<Pheye> {
        let mut random = Random { init: RandomInit::new(seed.unwrap_or(0)), options };
        let mut nothing = Shapes(|_: &str, _: Shape| ());
        let rest: &mut dyn Source = if seed.is_some() { &mut random } else { &mut nothing };
        let (progress, done) = (RefCell::new(progress), Cell::new([0; 2]));
        let text = self.text.as_ref().map(|file| self.text_source(file, options));
        let tower = self.vision.as_ref().map_or(0, |file| vision_source(file, options).bytes());
        let all = tower + text.as_ref().map_or(0, CheckpointSource::bytes);
        let part = |i: usize| {
            let (progress, done) = (&progress, &done);
            move |now, _| {
                let mut parts = done.get();
                parts[i] = now;
                done.set(parts);
                progress.borrow_mut()(parts.iter().sum(), all);
            }
        };
        let read = seed.is_some();
        let text = text.map(|file| if read { file.progress(part(0)) } else { file.check_only() });
        let not_text = |name: &str| name.starts_with(VIT_PREFIX) || Pheye::is_pheye_param(name);
        let not_tower = |name: &str| !name.starts_with(VIT_PREFIX) || Pheye::is_pheye_param(name);
        let mut model = before(text, not_text, rest, |rest| {
            let vision = self.vision.as_ref().map(|file| vision_source(file, options));
            let vision = vision.map(|file| if read { file.progress(part(1)) } else { file.check_only() });
            before(vision, not_tower, rest, |all| Pheye::build(config, &mut Scope::new(all, "")))
        })?;
        model.remarks.extend([&self.vision, &self.text].into_iter().flatten().filter_map(remark));
        Ok(model)
    }

    /// The tensor source for the language model.
    fn text_source<'f>(&self, file: &'f Checkpoint, options: Options) -> CheckpointSource<'f> {
        let (mut map, tied) = (names::of_text(file), self.tied);
        let head = map.apply(HEAD);
        if tied {
            let embedding = map.apply(EMBEDDING);
            map = map.first(HEAD, &embedding);
        }
        names::source(file, options.dtypes())
            .names(map)
            .allow_unused(move |name| beside_phi(name) || names::beside_text(name) || (tied && name == head))
    }
}

/// The tensor source for the vision tower.
fn vision_source(file: &Checkpoint, options: Options) -> CheckpointSource<'_> {
    names::source(file, options.dtypes()).names(names::of_vision(file)).allow_unused(names::beside_tower)
}

/// Calls `build` with the source `file` (if there is one) before `rest`, which supplies the tensors that `may`
/// accepts, and reports mismatches of the file.
fn before<'a, T>(
    file: Option<CheckpointSource<'a>>,
    may: impl Fn(&str) -> bool + 'a,
    rest: &'a mut dyn Source,
    build: impl FnOnce(&mut dyn Source) -> Result<T>,
) -> Result<T> {
    let Some(file) = file else { return build(rest) };
    let mut source = file.fallback(may, rest);
    let built = build(&mut source)?;
    source.finish()?;
    Ok(built)
}

/// Random weights in the storage types of `options`.
struct Random {
    init: RandomInit,
    options: Options,
}

impl Source for Random {
    fn tensor(&mut self, name: &str, shape: Shape, init: Init) -> Tensor {
        let value = self.init.tensor(name, shape, init);
        value.to_dtype(self.options.dtype(name)).expect("the tensor is in CPU memory")
    }

    fn shape_of(&self, name: &str) -> Option<Shape> {
        self.init.shape_of(name)
    }
}
