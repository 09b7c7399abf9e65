//! Converts a model folder tensor by tensor, without building the model, to this project's layout, PEFT
//! adapters or a plain CLIP vision model.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use pheye_tensor::{DType, Init, Scope, Shape, Source, Tensor};
use pheye_weights::json::read_json;
use pheye_weights::{
    Checkpoint, CheckpointSource, Item, ShardedWriter, StoredDType, Written, refuse_existing, write_elements,
};
use serde_json::{Value, json};

use crate::backbone;
use crate::json::{decimal, write_json};
use crate::load::{RELEASED_CONFIG, open_weights};
use crate::peft::{self, Adapter};
use crate::pheye::VIT_PREFIX;
use crate::{CONFIG_FILE, Config, Error, FileLookup, LoraSet, Pheye, Result, names};

/// The data types of converted tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cast {
    /// As they are stored.
    #[default]
    Stored,
    /// Frozen weights in bf16, the others as they are stored.
    FrozenBf16,
    /// All in this data type (int8 is written as f32).
    All(DType),
}

impl Cast {
    /// The type that the parameter `name` is converted to, or `None` to keep its type.
    fn of(self, name: &str) -> Option<DType> {
        match self {
            Cast::Stored => None,
            Cast::FrozenBf16 => (!Pheye::is_pheye_param(name)).then_some(DType::Bf16),
            Cast::All(dtype) => Some(dtype),
        }
    }
}

/// How converted weights are written.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// The output folder, which must not contain a model yet.
    pub folder: &'a Path,
    /// The type of the elements.
    pub keep: Cast,
    /// Maximum size of a file in bytes, usually [`SHARD_SIZE`]. Larger weights are written as shards and an
    /// index.
    pub shard_size: u64,
}

/// Shard size used on the hub, in bytes.
pub const SHARD_SIZE: u64 = 5_000_000_000;

/// Called with the bytes written so far and the total.
pub type OnWritten<'a> = &'a mut dyn FnMut(u64, u64);

/// A model folder whose weights have been checked against its configuration but not read.
#[derive(Debug)]
pub struct Conversion {
    config: Config,
    base: Checkpoint,
    adapters: [Option<Adapter>; 2],
    params: Vec<(String, Shape)>,
    /// The name of the vision tower in a released configuration.
    encoder: Option<String>,
}

impl Conversion {
    /// Opens the model in `folder`, in either layout. `lora` names PEFT adapter folders that replace its LoRA
    /// sets (global, local), with their ranks and α. Backbones are found as in [`Pheye::load_named`].
    ///
    /// # Errors
    /// When [`Pheye::load_named`] would fail; all mismatches of a file are reported together.
    /// [`Error::NoLora`] for a set that the model does not have. When an adapter is of another kind, or its
    /// ranks differ from its configuration.
    pub fn open(folder: &Path, named: FileLookup, lora: [Option<&Path>; 2]) -> Result<Conversion> {
        let mut config = Config::load_named(folder, named)?;
        let base = open_weights(folder)?;
        let mut adapters = [None, None];
        for set in LoraSet::ALL {
            let Some(path) = lora[set.index()] else { continue };
            config.require(set)?;
            let adapter = Adapter::open(path, set)?;
            *config.lora_mut(set) = adapter.spec;
            adapters[set.index()] = Some(adapter);
        }
        let ranks = [config.lora_global.rank, config.lora_local.rank];
        let (config, params) = check(&config, &base, &adapters)?;
        for set in LoraSet::ALL {
            let (Some(adapter), rank) = (&adapters[set.index()], ranks[set.index()]) else { continue };
            uniform(&params, set, rank, adapter.checkpoint.path())?;
        }
        let released = read_json(&folder.join(RELEASED_CONFIG)).ok();
        let encoder = released.and_then(|c| Some(c.get("encoder")?.as_str()?.to_owned()));
        Ok(Conversion { config, base, adapters, params, encoder })
    }

    /// Remarks about how the weights are read, as in [`Pheye::remarks`].
    pub fn remarks(&self) -> Vec<String> {
        let adapters = self.adapters.iter().flatten().map(|adapter| &adapter.checkpoint);
        std::iter::once(&self.base).chain(adapters).filter_map(backbone::remark).collect()
    }

    /// The configuration, with the ranks found in the checkpoint or the adapters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Writes the weights of the whole model with this project's names, to `model.safetensors` or shards. The
    /// folder is a complete model once [`Conversion::save_config`] has run.
    ///
    /// # Errors
    /// When a file exists already, a tensor cannot be read, or writing fails. Files written by this call are
    /// then removed.
    pub fn save_weights(&self, to: &Output, progress: OnWritten) -> Result<Written> {
        refuse_existing([to.folder.join(CONFIG_FILE)])?;
        let all = self.params.iter().map(|(name, _)| (name.clone(), name.as_str()));
        self.write(all, to, "model", &BTreeMap::new(), progress)
    }

    /// Writes the configuration, which completes `folder` as a model.
    ///
    /// # Errors
    /// When the file exists already, or writing fails.
    pub fn save_config(&self, folder: &Path) -> Result<()> {
        refuse_existing([folder.join(CONFIG_FILE)])?;
        write_json(&folder.join(CONFIG_FILE), &self.config)
    }

    /// Writes a LoRA set as a PEFT adapter folder, with its configuration last. Module names are relative to
    /// the inner transformer of a `CLIPVisionModel` (`.vision_model`), which is what Pheye adapts.
    ///
    /// # Errors
    /// [`Error::NoLora`] when the model lacks the set. When modules have different ranks, or
    /// [`Conversion::save_weights`] fails.
    pub fn extract_lora(&self, set: LoraSet, to: &Output, progress: OnWritten) -> Result<Written> {
        self.config.require(set)?;
        let config = to.folder.join(peft::CONFIG);
        refuse_existing([&config])?;
        let spec = self.config.lora(set);
        uniform(&self.params, set, spec.rank, self.base.path())?;
        let names = peft::names(set);
        let params = self.params.iter().map(|(name, _)| name.as_str()).filter(|name| set.has(name));
        let params = params.map(|name| (names.apply(name), name));
        // PEFT does not read shards.
        let to = Output { shard_size: u64::MAX, ..*to };
        let written = self.write(params, &to, peft::STEM, &for_transformers(), progress)?;
        write_json(&config, &peft::config(spec, self.encoder.as_deref()))?;
        Ok(written)
    }

    /// Writes a plain CLIP vision model with one LoRA set merged into its linear layers: W + (α / r)·B·A,
    /// computed in f32. The weights have the published names, in one file or shards, followed by
    /// `config.json` of a `CLIPVisionModel`. The other set is omitted. Merged matrices stored as f16 or f64
    /// become f32.
    ///
    /// # Errors
    /// When [`Conversion::extract_lora`] fails.
    pub fn merge_lora(&self, set: LoraSet, to: &Output, progress: OnWritten) -> Result<Written> {
        self.config.require(set)?;
        let config = to.folder.join(RELEASED_CONFIG);
        refuse_existing([&config])?;
        let clip = names::clip();
        let tower = self.params.iter().map(|(name, _)| name.as_str());
        let tower = tower.filter(|name| name.starts_with(VIT_PREFIX) && !name.contains(".lora_"));
        let by_name: BTreeMap<String, &str> = tower.clone().map(|name| (clip.apply(name), name)).collect();
        let mut items = Vec::new();
        for name in tower {
            let mut item = self.item(name, clip.apply(name), to.keep)?;
            if self.low_rank(name, set).is_some() && item.dtype != StoredDType::Bf16 {
                item.dtype = StoredDType::F32;
            }
            items.push(item);
        }
        let mut elements = |item: &Item, out: &mut dyn Write| {
            let Some(&name) = by_name.get(&item.name) else { return Ok(()) };
            let Some(pair) = self.low_rank(name, set) else {
                return self.write_param(name, to.keep, out);
            };
            let dtype = if item.dtype == StoredDType::Bf16 { DType::Bf16 } else { DType::F32 };
            let merged = self.merged(name, pair, set).and_then(|w| Ok(w.to_dtype(dtype)?));
            write_elements(out, &merged?)
        };
        let metadata = for_transformers();
        let files =
            ShardedWriter { folder: to.folder, stem: "model", limit: to.shard_size, metadata: &metadata };
        let written = files.save(&items, &mut elements, progress)?;
        write_json(&config, &clip_config(&self.config.vision))?;
        Ok(written)
    }

    /// Writes `params`, each given with its name in the file.
    fn write<'a>(
        &self,
        params: impl Iterator<Item = (String, &'a str)>,
        to: &Output,
        stem: &str,
        metadata: &BTreeMap<String, String>,
        progress: OnWritten,
    ) -> Result<Written> {
        let params: Vec<(String, &str)> = params.collect();
        let items = params.iter().map(|(file, name)| self.item(name, file.clone(), to.keep));
        let items: Vec<Item> = items.collect::<Result<_>>()?;
        let by_name: BTreeMap<String, &str> = params.into_iter().collect();
        let mut elements = |item: &Item, out: &mut dyn Write| match by_name.get(&item.name) {
            Some(name) => self.write_param(name, to.keep, out),
            None => Ok(()),
        };
        let files = ShardedWriter { folder: to.folder, stem, limit: to.shard_size, metadata };
        Ok(files.save(&items, &mut elements, progress)?)
    }

    /// The parameter `name`, to be written under the name `file`.
    fn item(&self, name: &str, file: String, keep: Cast) -> Result<Item> {
        let (checkpoint, stored) = self.place(name);
        Ok(Item { name: file, ..checkpoint.item(&stored, keep.of(name))? })
    }

    fn write_param(&self, name: &str, keep: Cast, out: &mut dyn Write) -> io::Result<()> {
        let (checkpoint, stored) = self.place(name);
        checkpoint.write_to(&stored, keep.of(name), out)
    }

    /// The file that holds the parameter `name`, and its name there.
    fn place(&self, name: &str) -> (&Checkpoint, String) {
        match LoraSet::of(name).and_then(|set| self.adapters[set.index()].as_ref()) {
            Some(adapter) => (&adapter.checkpoint, adapter.names.apply(name)),
            None => (&self.base, name.to_owned()),
        }
    }

    /// The names of A and B for the weight `name` of a linear layer; `None` if the layer has no adapter.
    fn low_rank(&self, name: &str, set: LoraSet) -> Option<[String; 2]> {
        let module = name.strip_suffix(".base_layer.weight")?;
        Some(["lora_A", "lora_B"].map(|part| format!("{module}.{part}.{}.weight", set.adapter())))
    }

    /// W + (α / r)·B·A in f32, for W `[n, …]`, A `[r, …]` and B `[n, r]`.
    fn merged(
        &self,
        name: &str,
        low_rank: [String; 2],
        set: LoraSet,
    ) -> Result<Tensor, pheye_weights::Error> {
        let read = |name: &str| {
            let (checkpoint, stored) = self.place(name);
            checkpoint.tensor(&stored, DType::F32)
        };
        let (mut w, [a, b]) = (read(name)?, [read(&low_rank[0])?, read(&low_rank[1])?]);
        let rank = a.shape().dims()[0].max(1);
        let scale = self.config.lora(set).alpha.unwrap_or(2.0 * rank as f32) / rank as f32;
        let (a, b) = (a.f32()?, b.f32()?);
        let k = (a.len() / rank).max(1);
        let mut sum = vec![0.0f32; k];
        for (w, b) in w.f32_mut()?.chunks_exact_mut(k).zip(b.chunks_exact(rank)) {
            sum.fill(0.0);
            for (a, b) in a.chunks_exact(k).zip(b) {
                sum.iter_mut().zip(a).for_each(|(sum, a)| *sum += a * b);
            }
            w.iter_mut().zip(&sum).for_each(|(w, sum)| *w += scale * sum);
        }
        Ok(w)
    }
}

/// Checks weights and configuration against each other without reading elements, and sets the configuration's
/// ranks to those of the tensors. Returns the parameters in network order.
fn check(
    config: &Config,
    base: &Checkpoint,
    adapters: &[Option<Adapter>; 2],
) -> Result<(Config, Vec<(String, Shape)>)> {
    let replaced = |name: &str| LoraSet::of(name).is_some_and(|set| adapters[set.index()].is_some());
    let open = |checkpoint| names::source(checkpoint, |_| DType::F32).check_only();
    let mut parts = Parts {
        base: open(base).allow_unused(replaced),
        adapters: [0, 1].map(|i| {
            let adapter: Option<&Adapter> = adapters[i].as_ref();
            adapter.map(|a| open(&a.checkpoint).names(a.names.clone()))
        }),
        shapes: BTreeMap::new(),
    };
    let mut model = Pheye::build(config, &mut Scope::new(&mut parts, ""))?;
    parts.base.finish()?;
    for adapter in parts.adapters.into_iter().flatten() {
        adapter.finish()?;
    }
    // The order in which a model is saved.
    let names = model.params_mut().into_iter().map(|p| p.name.clone());
    let params = names.filter_map(|name| parts.shapes.remove_entry(&name)).collect();
    Ok((model.config().clone(), params))
}

/// A model's weights with replaced adapters, and the shapes that the network requested.
struct Parts<'a> {
    base: CheckpointSource<'a>,
    adapters: [Option<CheckpointSource<'a>>; 2],
    shapes: BTreeMap<String, Shape>,
}

impl Source for Parts<'_> {
    fn tensor(&mut self, name: &str, shape: Shape, init: Init) -> Tensor {
        self.shapes.insert(name.to_owned(), shape);
        match LoraSet::of(name).and_then(|set| self.adapters[set.index()].as_mut()) {
            Some(adapter) => adapter.tensor(name, shape, init),
            None => self.base.tensor(name, shape, init),
        }
    }

    fn shape_of(&self, name: &str) -> Option<Shape> {
        match LoraSet::of(name).and_then(|set| self.adapters[set.index()].as_ref()) {
            Some(adapter) => adapter.shape_of(name),
            None => self.base.shape_of(name),
        }
    }
}

/// Returns an error unless every A of the set has this rank.
fn uniform(params: &[(String, Shape)], set: LoraSet, rank: usize, path: &Path) -> Result<()> {
    let mut all = params.iter().filter(|(name, _)| set.has(name) && name.contains(".lora_A."));
    let other = all.find(|(_, shape)| shape.dims().first() != Some(&rank));
    other.map_or(Ok(()), |(name, shape)| {
        let why = format!("`{name}` has rank {}, but the set has rank {rank}", shape.dims()[0]);
        Err(Error::Config { path: path.into(), why })
    })
}

/// File metadata without which transformers refuses to read a safetensors file.
fn for_transformers() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}

/// The `config.json` of a `CLIPVisionModel`.
fn clip_config(vision: &pheye_vit::Config) -> Value {
    let mut config = serde_json::to_value(vision).unwrap_or_default();
    config["layer_norm_eps"] = decimal(vision.layer_norm_eps);
    config["architectures"] = json!(["CLIPVisionModel"]);
    config["model_type"] = json!("clip_vision_model");
    config["num_channels"] = json!(3);
    config
}
