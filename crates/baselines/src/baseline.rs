//! The parts of a system, their prefixes in a checkpoint, and image encoding.

use pheye_gpt2::Gpt2;
use pheye_model::{Options, Recompute};
use pheye_ops::Cx;
use pheye_ops::lora::{Dropout, Route, RowRange};
use pheye_tensor::{DType, Device, Masters, Param, ParamTable, Scope, Tensor};
use pheye_vit::Vit;
use pheye_xattn::{Attention, AttentionConfig};

use crate::{Config, Connector, Error, Result, System};

/// One of the systems, with its parameters.
#[derive(Debug)]
pub struct Baseline {
    pub(crate) config: Config,
    pub(crate) vit: Vit,
    pub(crate) connector: Connector,
    pub(crate) gpt2: Gpt2,
    /// Cross-attention of each layer; empty if the rows of the image stand before the text.
    pub(crate) cross: Vec<Attention>,
    pub(crate) trained: Trained,
    pub(crate) recompute: Recompute,
}

/// Which parts have trained parameters, and so how far the backward pass must go.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trained {
    /// The tower or its LoRA sets.
    pub(crate) vit: bool,
    /// Something before the linear layer: the tower, tile positions or the resampler.
    pub(crate) features: bool,
    /// Something before the language model.
    pub(crate) media: bool,
    /// The token or position embedding.
    pub(crate) embed: bool,
}

/// The prefix of the tower in a checkpoint.
pub(crate) const VIT_PREFIX: &str = "encoder";
/// The prefix of the language model and of cross-attention.
pub(crate) const TEXT_PREFIX: &str = "decoder.transformer";

impl Baseline {
    /// A system of the given shape with parameters from the root `scope`, all of them frozen.
    ///
    /// # Errors
    /// When the configuration is invalid. Errors of the scope's source stay with the source.
    pub fn build(config: &Config, scope: &mut Scope) -> Result<Baseline> {
        config.validate()?;
        let vit = Vit::new(&mut scope.at(VIT_PREFIX), &config.vision, &config.adapters())?;
        let gpt2 = Gpt2::new(&mut scope.at(TEXT_PREFIX), &config.text)?;
        Baseline::join(config, vit, gpt2, scope)
    }

    /// The system of these backbones, with the parameters between them from the root `scope`.
    pub(crate) fn join(config: &Config, vit: Vit, gpt2: Gpt2, scope: &mut Scope) -> Result<Baseline> {
        let connector = Connector::new(scope, config)?;
        let mut text = scope.at(TEXT_PREFIX);
        let mut layers = text.at("h");
        let c = &config.text;
        let attention = AttentionConfig {
            bias: config.bias,
            layer_norm_eps: c.layer_norm_epsilon,
            ..AttentionConfig::gpt2(c.n_embd, c.n_head, c.n_layer)
        };
        let cross = match config.system {
            System::Smallcap => {
                (0..c.n_layer).map(|i| Attention::new(&mut layers.at(i), &attention)).collect()
            }
            System::Fromage | System::Llava => Vec::new(),
        };
        let (trained, recompute) = (Trained::default(), Recompute::default());
        Ok(Baseline { config: config.clone(), vit, connector, gpt2, cross, trained, recompute })
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
        all.extend(self.gpt2.params_mut());
        all.extend(self.cross.iter_mut().flat_map(Attention::params_mut));
        all
    }

    /// The storage type of the parameter of this name: that of trained weights if the system of `config` trains it.
    /// Quantization to int8 is for Pheye alone.
    pub fn dtype(config: &Config, options: Options, name: &str) -> DType {
        if config.trains(name) { options.trained } else { options.frozen }
    }

    /// Makes the parameters whose names `choose` accepts trainable, and freezes the others. The tower's
    /// `post_layernorm` always stays frozen where it is not applied. [`Config::trains`] is the paper's choice.
    ///
    /// # Errors
    /// When a GPU has no memory left. Never on the CPU.
    pub fn train(&mut self, mut choose: impl FnMut(&str) -> bool) -> Result<ParamTable> {
        let pooled = self.config.system == System::Fromage;
        let unused = |name: &str| !pooled && name.contains(".post_layernorm.");
        let table = ParamTable::assign(self.params_mut(), |p| !unused(&p.name) && choose(&p.name))?;
        let any = |params: Vec<&mut Param>| params.iter().any(|p| p.is_trained());
        let vit = any(self.vit.params_mut());
        let features = vit || any(self.connector.params_before_linear_mut());
        let media = features || any(self.connector.params_mut());
        let embed = self.gpt2.head.weight.is_trained() || self.gpt2.wpe.is_trained();
        self.trained = Trained { vit, features, media, embed };
        Ok(table)
    }

    /// Moves all parameters to `device`. Trained parameters become views of the returned flat arrays, laid out by
    /// `table`; frozen matrices become bf16. On the CPU nothing changes, and the result is `None`.
    ///
    /// # Errors
    /// When the device has too little memory.
    pub fn move_to(&mut self, device: &Device, table: &ParamTable) -> Result<Option<Masters>> {
        match device {
            Device::Cpu => Ok(None),
            Device::Gpu(_) => {
                self.connector.move_to(device)?;
                Ok(Some(table.upload(self.params_mut(), device)?))
            }
        }
    }

    /// Whether a parameter of the vision tower or of its LoRA sets is trained.
    pub fn trains_tower(&self) -> bool {
        self.trained.vit
    }

    /// Assigns LoRA sets to tiles: the global tiles of all images come first, then the local ones.
    pub(crate) fn route(&self, images: usize, dropout: Option<Dropout>) -> Route {
        let [first, second] = self.config.adapters();
        let tiles = images * (1 + self.config.local_tiles());
        let mut ranges = vec![RowRange { rows: 0..images, adapter: first.map(|_| 0) }];
        if tiles > images {
            ranges.push(RowRange { rows: images..tiles, adapter: second.map(|_| 1) });
        }
        Route { ranges, dropout }
    }

    /// Checks that there are images and the right number of tiles for them.
    pub(crate) fn check_pixels(&self, pixels: &Tensor, images: usize) -> Result<()> {
        self.check_tiles(pixels.shape().dims().first().copied().unwrap_or(0), images)
    }

    /// Checks that there are images and that `found` is the number of their tiles.
    pub(crate) fn check_tiles(&self, found: usize, images: usize) -> Result<()> {
        let (what, found, expected) = match images {
            0 => ("images", 0, 1),
            _ => ("tiles of all images", found, images.saturating_mul(1 + self.config.local_tiles())),
        };
        match found == expected {
            true => Ok(()),
            false => Err(Error::Model(pheye_model::Error::Batch { what, found, expected })),
        }
    }

    /// The last hidden state of the tower `[tiles · tokens, d]` for pixels `[images · (1 + L²), 3, s, s]`, in which the
    /// global tiles of all images come first.
    ///
    /// # Errors
    /// When the number or size of the tiles is wrong, or an operation fails.
    pub fn tower(&self, cx: &Cx, pixels: &Tensor, images: usize) -> Result<Tensor> {
        self.check_pixels(pixels, images)?;
        Ok(cx.install(|| self.vit.infer(cx, pixels, &self.route(images, None)))?)
    }

    /// What the tower gives, before resampler and linear layer, `[images, rows, vision width]`, for pixels as in
    /// [`Baseline::tower`].
    ///
    /// # Errors
    /// When the number or size of the tiles is wrong, or an operation fails.
    pub fn features(&self, cx: &Cx, pixels: &Tensor, images: usize) -> Result<Tensor> {
        let x = self.tower(cx, pixels, images)?;
        cx.install(|| Ok(self.connector.features(cx, &self.vit, &x, images)?.0))
    }

    /// Media `[images, media_tokens, text width]` from pixels as in [`Baseline::tower`]: what the language model reads.
    ///
    /// # Errors
    /// When the number or size of the tiles is wrong, or an operation fails.
    pub fn encode(&self, cx: &Cx, pixels: &Tensor, images: usize) -> Result<Tensor> {
        self.media(cx, &self.features(cx, pixels, images)?, images)
    }

    /// The media of [`Baseline::encode`] from the features of [`Baseline::features`].
    ///
    /// # Errors
    /// When the number of features is wrong, or an operation fails.
    pub fn media(&self, cx: &Cx, features: &Tensor, images: usize) -> Result<Tensor> {
        cx.install(|| Ok(self.connector.media(cx, features, images)?.0))
    }
}
