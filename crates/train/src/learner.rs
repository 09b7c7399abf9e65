//! The network that a run trains (a complete Pheye, a vision tower, a language model, or a system that Pheye is
//! compared with) behind one interface for the training loop.

use std::path::Path;

use pheye_baselines::Baseline;
use pheye_data::Batch;
use pheye_gpt2::Gpt2;
use pheye_model::{Changes, Loss, Options, Pheye, QueuedLoss, Recompute};
use pheye_ops::cross_entropy::Sum;
use pheye_ops::lora::Dropout;
use pheye_ops::{Cx, Graphs, RandomInit};
use pheye_phi::{Layout, Phi};
use pheye_tensor::{DType, Device, Grads, Masters, Param, ParamTable, Scope, Tensor};
use pheye_weights::{copy_atomically, save_safetensors};

use crate::config::Backbone;
use crate::contrastive::Contrastive;
use crate::pattern::selects;
use crate::{Config, Error, Language, Result, ShareConfig, Task};

/// A network with its loss.
pub(crate) enum Learner {
    /// Trained on questions about images.
    Pheye(Box<Pheye>),
    /// Trained to match images with captions.
    Contrastive(Box<Contrastive>),
    /// Trained to predict the next token.
    NextToken(Box<Phi>),
    /// Trained to predict the next token.
    Gpt2(Box<Gpt2>),
    /// Trained on questions about images, or captions.
    Baseline(Box<Baseline>),
}

/// File name of the tower's weights, written by [`Learner::export`] and read through `model.encoder`.
pub(crate) const VISION_FILE: &str = "vision.safetensors";
/// File name of the language model's weights.
const TEXT_FILE: &str = "text.safetensors";
const TOKENIZER_FILE: &str = "tokenizer.json";

impl Learner {
    /// The network of `config` at the start of a run. `progress` receives the number of bytes of weights loaded so
    /// far and their total.
    pub(crate) fn new(config: &Config, progress: impl FnMut(u64, u64)) -> Result<Learner> {
        let m = &config.model;
        let seed = config.train.seed;
        let options = if m.frozen_bf16 { Options::FROZEN_BF16 } else { Options::default() };
        let backbones =
            || Ok::<_, Error>([config.backbone(Backbone::Encoder)?, config.backbone(Backbone::Decoder)?]);
        match config.task {
            Task::Pheye => {
                let asked = config.network()?;
                let Some(init) = &m.init else {
                    let [vision, text] = backbones()?;
                    let (vision, text) = (vision.as_deref(), text.as_deref());
                    let model = Pheye::from_backbones(&asked, vision, text, seed, options, progress)?;
                    return Ok(Learner::Pheye(Box::new(model)));
                };
                let named = |name: &str| config.located.get(name).cloned();
                let loaded = Pheye::load_named(&config.model_path(init), options, &named, progress)?;
                let changes = Changes::to(&asked);
                let model = match Changes::to(loaded.config()) == changes {
                    true => loaded,
                    false => loaded.adapted(changes, seed)?,
                };
                Ok(Learner::Pheye(Box::new(model)))
            }
            Task::Baseline => {
                let Some(init) = &m.init else {
                    let [vision, text] = backbones()?;
                    let (vision, text) = (vision.as_deref(), text.as_deref());
                    let model = Baseline::from_backbones(&config.baseline()?, vision, text, seed, options)?;
                    return Ok(Learner::Baseline(Box::new(model)));
                };
                let model = Baseline::load(config.model_path(init), options, progress)?;
                Ok(Learner::Baseline(Box::new(model)))
            }
            Task::Contrastive => {
                Ok(Learner::Contrastive(Box::new(Contrastive::new(&config.network()?, seed)?)))
            }
            Task::NextToken => {
                let mut random = RandomInit::new(seed);
                if m.language == Language::Gpt2 {
                    let gpt2 = Gpt2::new(&mut Scope::new(&mut random, "transformer"), &config.gpt2()?)?;
                    return Ok(Learner::Gpt2(Box::new(gpt2)));
                }
                let text = config.network()?.text;
                let phi = Phi::new(&mut Scope::new(&mut random, "lang_encoder"), &text)
                    .map_err(pheye_model::Error::from)?;
                Ok(Learner::NextToken(Box::new(phi)))
            }
        }
    }

    /// Remarks for the user about how the weights were read.
    pub(crate) fn remarks(&self) -> &[String] {
        match self {
            Learner::Pheye(model) => model.remarks(),
            Learner::Contrastive(_) | Learner::NextToken(_) | Learner::Gpt2(_) | Learner::Baseline(_) => &[],
        }
    }

    /// Sets how many blocks backward recomputes. The language model alone has no recompute.
    pub(crate) fn set_recompute(&mut self, recompute: Recompute) {
        match self {
            Learner::Pheye(model) => model.set_recompute(recompute),
            Learner::Contrastive(c) => c.vit.recompute = recompute.vision,
            Learner::NextToken(_) | Learner::Gpt2(_) => {}
            Learner::Baseline(model) => model.set_recompute(recompute),
        }
    }

    /// Moves all parameters to `device`. On a GPU, returns the flat arrays that hold the trained ones.
    pub(crate) fn move_to(&mut self, device: &Device, table: &ParamTable) -> Result<Option<Masters>> {
        match (device, &mut *self) {
            (Device::Cpu, _) => return Ok(None),
            (_, Learner::Pheye(model)) => return Ok(model.move_to(device, table)?),
            (_, Learner::Baseline(model)) => return Ok(model.move_to(device, table)?),
            (_, Learner::NextToken(phi)) => phi.rotary.move_to(device).map_err(pheye_model::Error::from)?,
            (_, Learner::Contrastive(_) | Learner::Gpt2(_)) => {}
        }
        Ok(Some(table.upload(self.params_mut(), device)?))
    }

    pub(crate) fn params_mut(&mut self) -> Vec<&mut Param> {
        match self {
            Learner::Pheye(model) => model.params_mut(),
            Learner::Contrastive(c) => c.params_mut(),
            Learner::NextToken(phi) => phi.params_mut(),
            Learner::Gpt2(gpt2) => gpt2.params_mut(),
            Learner::Baseline(model) => model.params_mut(),
        }
    }

    /// Marks the parameters that match one of `patterns` and none of those with a `!` before them as trained;
    /// without patterns, those that the task trains by default.
    pub(crate) fn choose(&mut self, patterns: &[String]) -> Result<ParamTable> {
        let picked = |name: &str| selects(patterns, name);
        match self {
            Learner::Pheye(model) if patterns.is_empty() => Ok(model.train(Pheye::is_pheye_param)?),
            Learner::Pheye(model) => Ok(model.train(picked)?),
            Learner::Baseline(model) => {
                let config = model.config().clone();
                let default = patterns.is_empty();
                Ok(model.train(|name| if default { config.trains(name) } else { picked(name) })?)
            }
            other => {
                let all = patterns.is_empty();
                Ok(ParamTable::assign(other.params_mut(), |p| all || picked(&p.name))?)
            }
        }
    }

    /// The share of the learning rate that the parameter `name` has: that of the first of `shares` that selects it;
    /// without any, a tenth for the tower of a baseline, as in the paper.
    pub(crate) fn share(&self, shares: &[ShareConfig], name: &str) -> f64 {
        if let (Learner::Baseline(model), []) = (self, shares) {
            return model.config().share(name);
        }
        shares.iter().find(|group| selects(&group.params, name)).map_or(1.0, |group| group.share)
    }

    /// Whether it has a vision tower of which nothing is trained.
    pub(crate) fn has_frozen_tower(&self) -> bool {
        match self {
            Learner::Pheye(model) => !model.trains_tower(),
            Learner::Baseline(model) => !model.trains_tower(),
            Learner::Contrastive(_) | Learner::NextToken(_) | Learner::Gpt2(_) => false,
        }
    }

    /// The configuration of the vision tower, and the number of local tiles of an image.
    pub(crate) fn tower(&self) -> (&pheye_vit::Config, usize) {
        match self {
            Learner::Pheye(model) => (&model.config().vision, model.config().connector.local_tiles()),
            Learner::Baseline(model) => (&model.config().vision, model.config().local_tiles()),
            Learner::Contrastive(c) => (c.vit.config(), 0),
            Learner::NextToken(_) | Learner::Gpt2(_) => {
                unreachable!("a language model has no vision tower")
            }
        }
    }

    /// The output of the vision tower for the pixels of one image.
    pub(crate) fn features(&self, cx: &Cx, pixels: &Tensor) -> Result<Tensor> {
        match self {
            Learner::Pheye(model) => Ok(model.features(cx, pixels, 1)?),
            Learner::Baseline(model) => Ok(model.tower(cx, pixels, 1)?),
            Learner::Contrastive(_) | Learner::NextToken(_) | Learner::Gpt2(_) => {
                unreachable!("only a frozen tower has features that are kept")
            }
        }
    }

    /// Whether the batch contributes to the loss: it has images (contrastive) or at least one target token.
    pub(crate) fn learns(&self, batch: &Batch) -> bool {
        match self {
            Learner::Contrastive(_) => !batch.images.is_empty(),
            _ => batch.sequences.iter().any(|s| s.ids.len() > s.loss_from.max(1)),
        }
    }

    /// The pixels of a batch for [`Learner::queue`], if they can be uploaded in advance.
    pub(crate) fn pixels(&self, batch: &Batch) -> Result<Option<Tensor>> {
        match self {
            Learner::Pheye(_) | Learner::Baseline(_) => Ok(Some(stack(self.tower().0.image_size, batch)?)),
            Learner::Contrastive(_) | Learner::NextToken(_) | Learner::Gpt2(_) => Ok(None),
        }
    }

    /// Queues forward and backward of a batch without waiting for the GPU. The gradients of the summed loss
    /// are added to `grads`.
    pub(crate) fn queue(
        &self,
        cx: &Cx,
        batch: &Batch,
        pixels: Option<Tensor>,
        dropout: Option<Dropout>,
        grads: &mut Grads,
        graphs: &mut Graphs,
    ) -> Result<QueuedLoss> {
        let Loss { sum, tokens } = match (self, pixels) {
            (Learner::Pheye(model), pixels) => {
                let batch = packed(batch, self.uploaded(cx, batch, pixels)?);
                return Ok(cx.replay(graphs, |cx| model.queue_loss_and_grads(cx, &batch, dropout, grads))?);
            }
            (Learner::Baseline(model), pixels) => {
                let batch = packed(batch, self.uploaded(cx, batch, pixels)?);
                return Ok(cx.replay(graphs, |cx| model.queue_loss_and_grads(cx, &batch, dropout, grads))?);
            }
            (Learner::Contrastive(c), _) => cx.install(|| c.loss_and_grads(cx, batch, grads))?,
            (Learner::NextToken(phi), _) => {
                let (ids, targets, lengths) = pack(batch);
                let layout = Layout::packed(&lengths);
                let (sum, tokens) =
                    cx.install(|| phi.next_token_loss(cx, &ids, &targets, &layout, Some(grads)))?;
                Loss { sum, tokens }
            }
            (Learner::Gpt2(gpt2), _) => {
                let (ids, targets, lengths) = pack(batch);
                let layout = Layout::packed(&lengths);
                let (sum, tokens) =
                    cx.install(|| gpt2.next_token_loss(cx, &ids, &targets, &layout, Some(grads)))?;
                Loss { sum, tokens }
            }
        };
        Ok(QueuedLoss { sum: Sum::Host(sum), tokens })
    }

    /// The pixels of a batch on the device, unless they are there already.
    fn uploaded(&self, cx: &Cx, batch: &Batch, pixels: Option<Tensor>) -> Result<Tensor> {
        match pixels {
            Some(pixels) => Ok(pixels),
            None => Ok(cx.upload(&stack(self.tower().0.image_size, batch)?)?),
        }
    }

    /// [`Learner::queue`] of a network with a frozen tower, for images with these features.
    pub(crate) fn queue_features(
        &self,
        cx: &Cx,
        batch: &Batch,
        features: &Tensor,
        grads: &mut Grads,
    ) -> Result<QueuedLoss> {
        let batch = packed(batch, Tensor::zeros([0], DType::F32));
        match self {
            Learner::Pheye(model) => Ok(model.loss_and_grads_of_features(cx, features, &batch, grads)?),
            Learner::Baseline(model) => Ok(model.loss_and_grads_of_tower(cx, features, &batch, grads)?),
            Learner::Contrastive(_) | Learner::NextToken(_) | Learner::Gpt2(_) => {
                unreachable!("only a frozen tower has features that are kept")
            }
        }
    }

    /// Writes the trained weights and the tokenizer: a model folder, or a backbone that other runs can start
    /// from.
    pub(crate) fn export(&mut self, folder: &Path, tokenizer: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::write(folder, e))?;
        let none = Default::default();
        match self {
            Learner::Pheye(model) => {
                model.save(folder)?;
                save_backbones(model, folder)?;
            }
            Learner::Contrastive(c) => {
                let params = c.vit.params_mut();
                let tensors = params.iter().map(|p| (p.name.as_str(), &p.value));
                save_safetensors(folder.join(VISION_FILE), tensors, &none)?;
            }
            Learner::NextToken(phi) => {
                let params = phi.params_mut();
                let tensors = params.iter().map(|p| (p.name.as_str(), &p.value));
                save_safetensors(folder.join(TEXT_FILE), tensors, &none)?;
            }
            Learner::Gpt2(gpt2) => gpt2.save(folder)?,
            Learner::Baseline(model) => model.save(folder)?,
        }
        let copy = folder.join(TOKENIZER_FILE);
        let file = if tokenizer.is_dir() { tokenizer.join(TOKENIZER_FILE) } else { tokenizer.to_path_buf() };
        // `file` and `copy` may be the same file; an atomic copy keeps it intact.
        Ok(copy_atomically(file, copy)?)
    }
}

/// Writes the backbones of which parameters were trained as files of their own, from which other runs can
/// start. The tower is written without its adapters.
fn save_backbones(model: &mut Pheye, folder: &Path) -> Result<()> {
    let params = model.params_mut();
    for (file, prefix) in [(VISION_FILE, "vision_encoder."), (TEXT_FILE, "lang_encoder.")] {
        let of_part = |p: &&&mut Param| p.name.starts_with(prefix) && !Pheye::is_pheye_param(&p.name);
        if params.iter().filter(of_part).any(|p| p.is_trained()) {
            let tensors = params.iter().filter(of_part).map(|p| (p.name.as_str(), &p.value));
            save_safetensors(folder.join(file), tensors, &Default::default())?;
        }
    }
    Ok(())
}

/// The pixels of all images of a batch, stacked; `size` is the side length of a tile.
fn stack(size: usize, batch: &Batch) -> Result<Tensor> {
    let tiles: Vec<_> = batch.images.iter().map(|p| (&p.tiles.global[..], &p.tiles.local[..])).collect();
    Ok(pheye_model::stack(size, &tiles)?)
}

/// A batch with these pixels as models take it.
fn packed(batch: &Batch, pixels: Tensor) -> pheye_model::Batch {
    let (ids, targets, lengths) = pack(batch);
    let image = batch.sequences.iter().map(|s| s.image).collect();
    pheye_model::Batch { pixels, images: batch.images.len(), ids, targets, lengths, image }
}

/// Packs all sequences of a batch: token ids, the target of each token (−100 for none), and the lengths.
fn pack(batch: &Batch) -> (Vec<u32>, Vec<i64>, Vec<usize>) {
    let (mut ids, mut targets) = (Vec::new(), Vec::new());
    for s in &batch.sequences {
        ids.extend(&s.ids);
        targets.extend((1..=s.ids.len()).map(|next| match s.ids.get(next) {
            Some(&id) if next >= s.loss_from => i64::from(id),
            _ => -100,
        }));
    }
    (ids, targets, batch.sequences.iter().map(|s| s.ids.len()).collect())
}
