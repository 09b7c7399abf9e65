//! What a comparison needs of a model, for a Pheye and for a baseline.

use std::path::Path;

use pheye_baselines::Baseline;
use pheye_image::Preprocess;
use pheye_model::{Batch, Generated, GenerationConfig, Hooks, Loss, Options, Pheye};
use pheye_ops::Cx;
use pheye_tensor::{Device, Grads, Masters, Param, ParamTable, Tensor};
use pheye_weights::Stored;

use crate::Result;

/// A model that is compared with golden data, trained as the paper trains it.
pub(crate) trait Network: Sized {
    /// The model in `folder`, in f32.
    fn load(folder: &Path) -> Result<Self>;

    /// How an image becomes pixels.
    fn preprocess(&self) -> Preprocess;

    /// Number of different tokens.
    fn vocab_size(&self) -> usize;

    /// Makes the parameters trainable that the paper trains.
    fn train(&mut self) -> Result<ParamTable>;

    /// Moves all parameters to `device`.
    fn move_to(&mut self, device: &Device, table: &ParamTable) -> Result<Option<Masters>>;

    /// All parameters.
    fn params_mut(&mut self) -> Vec<&mut Param>;

    /// Where golden data have the gradient of the parameter that the network calls `name`.
    fn stored(&self, name: &str) -> Stored {
        Stored::whole(name)
    }

    /// The share of the learning rate that the parameter of this name has in golden training steps.
    fn share(&self, _name: &str) -> f64 {
        1.0
    }

    /// The features, where golden data have them, and the media.
    fn encode(&self, cx: &Cx, pixels: &Tensor, images: usize) -> Result<(Option<Tensor>, Tensor)>;

    /// Logits of all tokens.
    fn logits(&self, cx: &Cx, media: &Tensor, batch: &Batch) -> Result<Tensor>;

    /// The loss of a batch with these media, and their gradient if something before them is trained.
    fn language(
        &self,
        cx: &Cx,
        batch: &Batch,
        media: &Tensor,
        grads: &mut Grads,
    ) -> Result<(Loss, Option<Tensor>)>;

    /// The loss of a batch; gradients are accumulated in `grads`.
    fn loss_and_grads(&self, cx: &Cx, batch: &Batch, grads: &mut Grads) -> Result<Loss>;

    /// Answers to prompts about images, or `None` if a logit is not finite.
    fn generate(
        &self,
        cx: &Cx,
        media: &Tensor,
        prompts: &[Vec<u32>],
        image: &[usize],
        how: &GenerationConfig,
    ) -> Result<Option<Generated>>;

    /// The scores of the token after a prompt about an image, or `None` if a logit is not finite.
    fn next_scores(
        &self,
        cx: &Cx,
        media: &Tensor,
        prompt: &[u32],
        image: usize,
        how: &GenerationConfig,
    ) -> Result<Option<Vec<f32>>>;
}

/// `None` if the error is that of a logit that is not finite.
fn finite<T, E: Into<crate::Error>>(made: std::result::Result<T, E>) -> Result<Option<T>> {
    use crate::Error;
    let not_finite = |e: &Error| match e {
        Error::Model(e) | Error::Baseline(pheye_baselines::Error::Model(e)) => {
            matches!(e, pheye_model::Error::NotFinite { .. })
        }
        _ => false,
    };
    match made.map_err(Into::into) {
        Err(e) if not_finite(&e) => Ok(None),
        made => made.map(Some),
    }
}

impl Network for Pheye {
    fn load(folder: &Path) -> Result<Pheye> {
        Ok(Pheye::load(folder, Options::default())?)
    }

    fn preprocess(&self) -> Preprocess {
        let c = self.config();
        Preprocess::new(c.vision.image_size, c.connector.level)
    }

    fn vocab_size(&self) -> usize {
        self.config().text.vocab_size
    }

    fn train(&mut self) -> Result<ParamTable> {
        Ok(self.train(Pheye::is_pheye_param)?)
    }

    fn move_to(&mut self, device: &Device, table: &ParamTable) -> Result<Option<Masters>> {
        Ok(self.move_to(device, table)?)
    }

    fn params_mut(&mut self) -> Vec<&mut Param> {
        self.params_mut()
    }

    fn encode(&self, cx: &Cx, pixels: &Tensor, images: usize) -> Result<(Option<Tensor>, Tensor)> {
        Ok((None, self.encode(cx, pixels, images)?))
    }

    fn logits(&self, cx: &Cx, media: &Tensor, batch: &Batch) -> Result<Tensor> {
        Ok(self.logits(cx, media, batch)?)
    }

    fn language(
        &self,
        cx: &Cx,
        batch: &Batch,
        media: &Tensor,
        grads: &mut Grads,
    ) -> Result<(Loss, Option<Tensor>)> {
        Ok(self.language(cx, batch, media, grads)?)
    }

    fn loss_and_grads(&self, cx: &Cx, batch: &Batch, grads: &mut Grads) -> Result<Loss> {
        Ok(self.loss_and_grads(cx, batch, None, grads)?)
    }

    fn generate(
        &self,
        cx: &Cx,
        media: &Tensor,
        prompts: &[Vec<u32>],
        image: &[usize],
        how: &GenerationConfig,
    ) -> Result<Option<Generated>> {
        let kvs = self.cross_kv(cx, media)?;
        finite(self.generate(cx, &kvs, prompts, image, how, Hooks::default()))
    }

    fn next_scores(
        &self,
        cx: &Cx,
        media: &Tensor,
        prompt: &[u32],
        image: usize,
        how: &GenerationConfig,
    ) -> Result<Option<Vec<f32>>> {
        let kvs = self.cross_kv(cx, media)?;
        let scores = finite(self.next_scores(cx, &kvs, &[prompt.to_vec()], &[image], how))?;
        Ok(scores.map(|mut scores| scores.swap_remove(0)))
    }
}

impl Network for Baseline {
    fn load(folder: &Path) -> Result<Baseline> {
        Ok(Baseline::load(folder, Options::default(), |_, _| ())?)
    }

    fn preprocess(&self) -> Preprocess {
        Preprocess::new(self.config().vision.image_size, self.config().level)
    }

    fn vocab_size(&self) -> usize {
        self.config().text.vocab_size
    }

    fn train(&mut self) -> Result<ParamTable> {
        let config = self.config().clone();
        Ok(self.train(|name| config.trains(name))?)
    }

    fn move_to(&mut self, device: &Device, table: &ParamTable) -> Result<Option<Masters>> {
        Ok(self.move_to(device, table)?)
    }

    fn params_mut(&mut self) -> Vec<&mut Param> {
        self.params_mut()
    }

    fn stored(&self, name: &str) -> Stored {
        pheye_baselines::stored(self.config(), name)
    }

    fn share(&self, name: &str) -> f64 {
        self.config().share(name)
    }

    fn encode(&self, cx: &Cx, pixels: &Tensor, images: usize) -> Result<(Option<Tensor>, Tensor)> {
        let features = self.features(cx, pixels, images)?;
        let media = self.media(cx, &features, images)?;
        Ok((Some(features), media))
    }

    fn logits(&self, cx: &Cx, media: &Tensor, batch: &Batch) -> Result<Tensor> {
        Ok(self.logits(cx, media, batch)?)
    }

    fn language(
        &self,
        cx: &Cx,
        batch: &Batch,
        media: &Tensor,
        grads: &mut Grads,
    ) -> Result<(Loss, Option<Tensor>)> {
        Ok(self.language(cx, batch, media, grads)?)
    }

    fn loss_and_grads(&self, cx: &Cx, batch: &Batch, grads: &mut Grads) -> Result<Loss> {
        Ok(self.loss_and_grads(cx, batch, None, grads)?)
    }

    fn generate(
        &self,
        cx: &Cx,
        media: &Tensor,
        prompts: &[Vec<u32>],
        image: &[usize],
        how: &GenerationConfig,
    ) -> Result<Option<Generated>> {
        let images = self.images(cx, media.clone())?;
        finite(self.generate(cx, &images, prompts, image, how, Hooks::default()))
    }

    fn next_scores(
        &self,
        cx: &Cx,
        media: &Tensor,
        prompt: &[u32],
        image: usize,
        how: &GenerationConfig,
    ) -> Result<Option<Vec<f32>>> {
        let images = self.images(cx, media.clone())?;
        let scores = finite(self.next_scores(cx, &images, &[prompt.to_vec()], &[image], how))?;
        Ok(scores.map(|mut scores| scores.swap_remove(0)))
    }
}
