//! From the tower's last hidden state to the rows that the language model reads, in two steps. The features are the
//! class token of each image, or the tokens of its tiles plus tile positions. The media are the features, resampled
//! and through a linear layer where the system has them.

use pheye_ops::linear::{self, Linear};
use pheye_ops::{Cx, Result, rows, tile_embed};
use pheye_resample::Resampler;
use pheye_tensor::{Device, Grads, Init, Param, Scope, Tensor};
use pheye_vit::{ClassTokenSaved, Vit};

use crate::{Config, System};

/// The parameters between the tower and the language model.
#[derive(Debug)]
pub struct Connector {
    /// Whether the features are the class token alone, behind the tower's `post_layernorm`.
    class_token: bool,
    /// One row for each tile, from level 2 on.
    positions: Option<Param>,
    resampler: Option<Resampler>,
    /// From the width of the tower to that of the language model.
    linear: Option<Linear>,
    /// Local tiles of an image, and tokens of a tile.
    tiles: usize,
    tokens: usize,
}

/// Values that the backward of the features needs.
#[derive(Debug)]
pub struct FeaturesSaved {
    class_token: Option<ClassTokenSaved>,
}

/// Values that the backward of the media needs.
#[derive(Debug)]
pub struct MediaSaved {
    resampler: Option<pheye_resample::Saved>,
    linear: Option<linear::Saved>,
}

impl Connector {
    /// The connector at the root `scope`, initialised as the published modules are: linears as in torch, positions from
    /// N(0, 0.02²).
    pub(crate) fn new(scope: &mut Scope, config: &Config) -> crate::Result<Connector> {
        let (vision, text) = (config.vision.hidden_size, config.text.n_embd);
        let (tiles, tokens) = (config.local_tiles(), config.vision.tokens());
        let positions = (tiles > 0)
            .then(|| scope.at("positions").param("weight", [1 + tiles, vision], Init::Normal(0.02)));
        let resampler = match &config.resampler {
            Some(c) => Some(Resampler::new(&mut scope.at("resampler"), c, vision, tokens)?),
            None => None,
        };
        let name = match config.system {
            System::Fromage => Some("visual_embeddings"),
            System::Llava => Some("mm_projector"),
            System::Smallcap => (vision != text).then_some("enc_to_dec_proj"),
        };
        let init = Init::Uniform((vision as f32).sqrt().recip());
        let linear = name.map(|name| {
            let mut scope = scope.at(name);
            let weight = scope.param("weight", [text, vision], init);
            Linear { weight, bias: config.bias.then(|| scope.param("bias", [text], init)) }
        });
        let class_token = config.system == System::Fromage;
        Ok(Connector { class_token, positions, resampler, linear, tiles, tokens })
    }

    /// All parameters.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all: Vec<_> = self.positions.iter_mut().collect();
        all.extend(self.resampler.iter_mut().flat_map(Resampler::params_mut));
        all.extend(self.linear.iter_mut().flat_map(Linear::params_mut));
        all
    }

    /// Tile positions and the resampler.
    pub(crate) fn params_before_linear_mut(&mut self) -> Vec<&mut Param> {
        let mut all: Vec<_> = self.positions.iter_mut().collect();
        all.extend(self.resampler.iter_mut().flat_map(Resampler::params_mut));
        all
    }

    /// Moves constants that are no parameters to `device`.
    pub(crate) fn move_to(&mut self, device: &Device) -> Result<()> {
        self.resampler.as_mut().map_or(Ok(()), |resampler| resampler.move_to(device))
    }

    /// The features `[images, rows, vision width]` of `images` images, from the last hidden state x of the tower `vit`,
    /// in which the global tiles of all images come first.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn features(&self, cx: &Cx, vit: &Vit, x: &Tensor, images: usize) -> Result<(Tensor, FeaturesSaved)> {
        let d = x.shape().cols();
        if self.class_token {
            let (y, saved) = vit.class_token(cx, x)?;
            return Ok((y.reshape([images, 1, d])?, FeaturesSaved { class_token: Some(saved) }));
        }
        let (n, rows) = (self.tokens, images * self.tokens);
        let features = match &self.positions {
            None => x.reshape([images, n, d])?,
            Some(positions) => {
                let global = x.rows(0..rows)?.reshape([images, n, d])?;
                let local = x.rows(rows..x.shape().rows())?.reshape([images * self.tiles, n, d])?;
                tile_embed::forward(cx, &global, Some(&local), positions)?
            }
        };
        Ok((features, FeaturesSaved { class_token: None }))
    }

    /// The gradient of the tower's last hidden state for the gradient of the features; the gradients of trained
    /// parameters are accumulated in `grads`.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn features_backward(
        &self,
        cx: &Cx,
        vit: &Vit,
        saved: &FeaturesSaved,
        dy: Tensor,
        images: usize,
        grads: &mut Grads,
    ) -> Result<Tensor> {
        if let Some(saved) = &saved.class_token {
            return vit.class_token_backward(cx, saved, &dy, grads);
        }
        let Some(positions) = &self.positions else { return Ok(dy) };
        let dy = dy.reshape([images, (1 + self.tiles) * self.tokens, dy.shape().cols()])?;
        match tile_embed::backward(cx, &dy, images, self.tiles, positions, Some(grads))? {
            (global, Some(local)) => rows::concat(cx, &[&global, &local]),
            (global, None) => Ok(global),
        }
    }

    /// The media `[images, media_tokens, text width]` of the features `[images, rows, vision width]`.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn media(&self, cx: &Cx, features: &Tensor, images: usize) -> Result<(Tensor, MediaSaved)> {
        let (mut x, mut saved) = (features.clone(), MediaSaved { resampler: None, linear: None });
        if let Some(resampler) = &self.resampler {
            let lengths = vec![(1 + self.tiles) * self.tokens; images];
            let (y, s) = resampler.forward(cx, &x, &lengths)?;
            (x, saved.resampler) = (y, Some(s));
        }
        if let Some(linear) = &self.linear {
            let (y, s) = linear::forward(cx, &x, linear)?;
            (x, saved.linear) = (y, Some(s));
        }
        let (rows, d) = (x.shape().rows(), x.shape().cols());
        Ok((x.reshape([images, rows / images.max(1), d])?, saved))
    }

    /// The gradient of the features for the gradient of the media, if it is `wanted`; the gradients of trained
    /// parameters are accumulated in `grads`.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn media_backward(
        &self,
        cx: &Cx,
        saved: &MediaSaved,
        mut dy: Tensor,
        wanted: bool,
        grads: &mut Grads,
    ) -> Result<Option<Tensor>> {
        if let (Some(linear), Some(saved)) = (&self.linear, &saved.linear) {
            if !wanted {
                linear::backward_params(cx, saved, &dy, linear, Some(grads))?;
                return Ok(None);
            }
            dy = linear::backward(cx, saved, &dy, linear, Some(&mut *grads))?;
        }
        if let (Some(resampler), Some(saved)) = (&self.resampler, &saved.resampler) {
            // The resampler gives back what it received: one row for each query.
            let (rows, d) = (dy.shape().rows(), dy.shape().cols());
            dy = resampler.backward(cx, saved, &dy.reshape([rows, d])?, grads)?;
        }
        Ok(wanted.then_some(dy))
    }
}
