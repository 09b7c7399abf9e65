//! The parts of the model, their prefixes in a checkpoint, and image encoding.

use pheye_ops::Cx;
use pheye_ops::lora::{Dropout, Route, RowRange};
use pheye_phi::Phi;
use pheye_tensor::{DType, Device, Masters, Param, ParamTable, Scope, Tensor};
use pheye_vit::{AdapterSpec, Vit};
use pheye_xattn::{Block, Connector};
use serde::{Deserialize, Serialize};

use crate::error::count;
use crate::{Config, Result};

/// Options that change how a model runs, not what it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Storage type of frozen weights. bf16 halves the memory and rounds to 8 bits of mantissa.
    pub frozen: DType,
    /// Storage type of the weights that Pheye trains. Training always converts them to f32.
    pub trained: DType,
    /// Whether the weights of linear layers are quantized to int8 with one scale per row: a quarter of the
    /// bytes of f32, with values from -127 to 127. With AVX2, a GEMM of seven or more rows uses integer
    /// arithmetic. For inference on the CPU.
    pub int8: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { frozen: DType::F32, trained: DType::F32, int8: false }
    }
}

impl Options {
    /// Everything in bf16, to run a model in half the memory.
    pub const BF16: Options = Options { frozen: DType::Bf16, trained: DType::Bf16, int8: false };

    /// [`Options::BF16`] with int8 where it saves time.
    pub const INT8: Options = Options { int8: true, ..Options::BF16 };

    /// Frozen weights in bf16 and the others in f32, to train in less memory.
    pub const FROZEN_BF16: Options = Options { trained: DType::F32, ..Options::BF16 };
}

impl Options {
    /// The storage type of the parameter of this name.
    pub fn dtype(self, name: &str) -> DType {
        match (self.int8 && Pheye::is_linear_weight(name), Pheye::is_pheye_param(name)) {
            (true, _) => DType::Int8,
            (_, true) => self.trained,
            (_, false) => self.frozen,
        }
    }

    /// [`Options::dtype`] as a function of the name.
    pub(crate) fn dtypes(self) -> impl Fn(&str) -> DType {
        move |name| self.dtype(name)
    }
}

/// How many layers save only their input and are recomputed in the backward pass. This uses less memory and
/// about a third more time per layer; the gradients are bit-identical.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recompute {
    /// Blocks of the vision tower, from the first.
    pub vision: usize,
    /// Decoder layers with their cross-attention blocks, from the first that backward reaches.
    pub text: usize,
}

/// A Pheye model.
#[derive(Debug)]
pub struct Pheye {
    pub(crate) config: Config,
    pub(crate) vit: Vit,
    pub(crate) connector: Connector,
    pub(crate) phi: Phi,
    pub(crate) cross: Vec<Option<Block>>,
    pub(crate) trainable: Trainable,
    pub(crate) recompute: Recompute,
    pub(crate) remarks: Vec<String>,
}

/// Which parts have trained parameters, and so how far the backward pass must go.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trainable {
    /// The tower or its adapters.
    pub(crate) vit: bool,
    /// The tower, its adapters or the connector.
    pub(crate) vision: bool,
    /// The token embedding.
    pub(crate) embed: bool,
    /// The first decoder layer that the backward pass reaches, because it or a block before it is trained.
    pub(crate) first_layer: usize,
}

/// The tower's prefix in a checkpoint.
pub(crate) const VIT_PREFIX: &str = "vision_encoder.vision_model.base_model.model";
/// The connector's prefix.
pub(crate) const CONNECTOR_PREFIX: &str = "vision_encoder";
/// The prefix of the language model and the cross-attention blocks.
pub(crate) const TEXT_PREFIX: &str = "lang_encoder";

impl Pheye {
    /// A model of the given shape with parameters from the root `scope`, all of them frozen. Ranks determined
    /// by the scope's source are stored in the model's configuration.
    ///
    /// # Errors
    /// When the configuration is invalid. Errors of the scope's source stay with the source.
    pub fn build(config: &Config, scope: &mut Scope) -> Result<Pheye> {
        config.validate()?;
        let (text, vision) = (config.text.hidden_size, config.vision.hidden_size);
        let mut tower = scope.at(VIT_PREFIX);
        let mut config = config.clone();
        for (spec, name) in [(&mut config.lora_global, "first"), (&mut config.lora_local, "second")] {
            let stored = tower.shape_of(&format!("embeddings.patch_embedding.lora_A.{name}.weight"));
            spec.rank = stored.and_then(AdapterSpec::rank_of).unwrap_or(spec.rank);
        }
        let vit = Vit::new(&mut tower, &config.vision, &config.adapters())?;
        let connector = Connector::new(&mut scope.at(CONNECTOR_PREFIX), &config.connector, vision);
        let mut lang = scope.at(TEXT_PREFIX);
        let phi = Phi::new(&mut lang, &config.text)?;
        let layers = config.text.num_hidden_layers;
        let mut blocks = lang.at("cross_attn_layers");
        let cross = (0..layers)
            .map(|i| {
                let has = config.connector.has_block(i);
                has.then(|| Block::new(&mut blocks.at(i), &config.connector, text, vision, layers))
            })
            .collect();
        Ok(Pheye {
            config,
            vit,
            connector,
            phi,
            cross,
            trainable: Trainable::default(),
            recompute: Recompute::default(),
            remarks: Vec::new(),
        })
    }

    /// Remarks about how the weights were read, one sentence each, such as a prefix that was removed from all
    /// names.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sets which layers the backward pass recomputes. A number above the number of layers means all of them.
    pub fn set_recompute(&mut self, recompute: Recompute) {
        self.recompute = recompute;
        self.vit.recompute = recompute.vision;
    }

    /// All parameters, in network order.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.vit.params_mut();
        all.extend(self.connector.params_mut());
        all.extend(self.phi.params_mut());
        all.extend(self.cross.iter_mut().flatten().flat_map(Block::params_mut));
        all
    }

    /// Whether Pheye trains the parameter of this name: LoRA, connector, cross-attention.
    pub fn is_pheye_param(name: &str) -> bool {
        name.contains(".lora_") || name.contains("cross_attn_layers.") || {
            name.starts_with(CONNECTOR_PREFIX) && !name.starts_with(VIT_PREFIX)
        }
    }

    /// Whether the parameter of this name is the weight of a linear layer of the tower, Phi or
    /// cross-attention. LoRA matrices are excluded.
    pub fn is_linear_weight(name: &str) -> bool {
        const LINEARS: [&str; 11] = [
            "q_proj", "k_proj", "v_proj", "out_proj", "dense", "fc1", "fc2", "lm_head", "to_q", "to_kv",
            "to_out",
        ];
        let module = name.strip_suffix(".weight").map(|n| n.strip_suffix(".base_layer").unwrap_or(n));
        module.and_then(|n| n.rsplit('.').next()).is_some_and(|m| LINEARS.contains(&m))
    }

    /// Makes the parameters whose names `choose` accepts trainable, and freezes the others. Norms that this
    /// model never applies (`norm_lvl_3`, at level 1 also `norm_lvl_2`, and the tower's `post_layernorm`)
    /// always stay frozen.
    ///
    /// # Errors
    /// When a GPU has no memory left. Never on the CPU.
    pub fn train(&mut self, mut choose: impl FnMut(&str) -> bool) -> Result<ParamTable> {
        let config = self.config.clone();
        let table = ParamTable::assign(self.params_mut(), |p| !config.is_unused(&p.name) && choose(&p.name))?;
        let any = |params: Vec<&mut Param>| params.iter().any(|p| p.is_trained());
        let vit = any(self.vit.params_mut());
        let vision = vit || any(self.connector.params_mut());
        let layers = self.config.text.num_hidden_layers;
        let embed = self.phi.embed.is_trained();
        let mut first_layer = if embed { 0 } else { layers };
        for i in (0..first_layer).rev() {
            // Image features reach the loss through every block, so a trained tower needs them all.
            let cross = self.cross[i].as_mut().is_some_and(|b| vision || any(b.params_mut()));
            if cross || any(self.phi.blocks[i].params_mut()) {
                first_layer = i;
            }
        }
        self.trainable = Trainable { vit, vision, embed, first_layer };
        Ok(table)
    }

    /// Moves all parameters to `device`. Trained parameters become views of the returned flat arrays, laid
    /// out by `table`; frozen matrices become bf16. On the CPU nothing changes, and the result is `None`.
    ///
    /// # Errors
    /// [`pheye_tensor::Error::Gpu`] when the device has too little memory.
    pub fn move_to(&mut self, device: &Device, table: &ParamTable) -> Result<Option<Masters>> {
        match device {
            Device::Cpu => Ok(None),
            Device::Gpu(_) => {
                self.phi.rotary.move_to(device)?;
                Ok(Some(table.upload(self.params_mut(), device)?))
            }
        }
    }

    /// Assigns adapters to tiles: the global tiles of all images come first, then the local ones.
    pub(crate) fn route(&self, images: usize, dropout: Option<Dropout>) -> Route {
        let tiles = images * (1 + self.config.connector.local_tiles());
        let global = RowRange { rows: 0..images, adapter: Some(0) };
        let local = RowRange { rows: images..tiles, adapter: Some(1) };
        Route { ranges: if tiles > images { vec![global, local] } else { vec![global] }, dropout }
    }

    /// Checks that there are images and the right number of tiles for them.
    pub(crate) fn check_pixels(&self, pixels: &Tensor, images: usize) -> Result<()> {
        let tiles = pixels.shape().dims().first().copied().unwrap_or(0);
        let needed = images.saturating_mul(1 + self.config.connector.local_tiles());
        if images == 0 { count("images", 0, 1) } else { count("tiles of all images", tiles, needed) }
    }

    /// Whether a parameter of the vision tower or of its adapters is trained.
    pub fn trains_tower(&self) -> bool {
        self.trainable.vit
    }

    /// The output of the vision tower `[images · (1 + L²), tokens, d]` for pixels `[images · (1 + L²), 3, s, s]`, in
    /// which the global tiles of all images come first.
    ///
    /// # Errors
    /// When the number or size of the tiles is wrong, or an operation fails.
    pub fn features(&self, cx: &Cx, pixels: &Tensor, images: usize) -> Result<Tensor> {
        self.check_pixels(pixels, images)?;
        let x = cx.install(|| self.vit.infer(cx, pixels, &self.route(images, None)))?;
        let tiles = images * (1 + self.config.connector.local_tiles());
        Ok(x.reshape([tiles, self.config.vision.tokens(), self.config.vision.hidden_size])?)
    }

    /// Media `[images, media_tokens, d]` from pixels `[images · (1 + L²), 3, s, s]`, in which the global
    /// tiles of all images come first.
    ///
    /// # Errors
    /// When the number or size of the tiles is wrong, or an operation fails.
    pub fn encode(&self, cx: &Cx, pixels: &Tensor, images: usize) -> Result<Tensor> {
        self.check_pixels(pixels, images)?;
        cx.install(|| {
            let x = self.vit.infer(cx, pixels, &self.route(images, None))?;
            Ok(self.connector.forward(cx, &x, images)?.0)
        })
    }
}
