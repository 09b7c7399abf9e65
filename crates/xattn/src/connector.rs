//! The connector: LayerNorm of global and local tokens, concatenation to one sequence per image, and a learned
//! embedding for each tile.

use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::{Cx, Error, Result, rows, tile_embed};
use pheye_tensor::{Grads, Init, Param, Scope, Tensor};

use crate::Config;
use crate::config::TILE_ROWS;

/// The parameters of the connector.
#[derive(Debug)]
pub struct Connector {
    norms: [LayerNorm; 3],
    tiles: Param,
    local: usize,
}

/// Values that the backward of the connector needs.
#[derive(Debug)]
pub struct Saved {
    global: layernorm::Saved,
    local: Option<layernorm::Saved>,
    images: usize,
    tokens: usize,
}

impl Connector {
    /// The connector at `scope` (`vision_encoder` in a checkpoint). `norm_lvl_3` is in every checkpoint but not used.
    pub fn new(scope: &mut Scope, config: &Config, d: usize) -> Connector {
        let norms = [1, 2, 3].map(|i| LayerNorm::new(&mut scope.at(format_args!("norm_lvl_{i}")), d, 1e-5));
        let tiles = scope.at("connector").at("embedding").param("weight", [TILE_ROWS, d], Init::Normal(0.02));
        Connector { norms, tiles, local: config.local_tiles() }
    }

    /// All parameters.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all: Vec<_> = self.norms.iter_mut().flat_map(LayerNorm::params_mut).collect();
        all.push(&mut self.tiles);
        all
    }

    /// Media [images, (1 + t)·n, d] from the tower's hidden state [images·(1 + t), n, d], in which the global views of
    /// all images come first; t is [`Config::local_tiles`].
    ///
    /// # Errors
    /// [`Error::Range`] when `images` is 0 or its views do not divide the rows of x, and an error when other shapes are
    /// inconsistent, or a GPU is out of memory or fails.
    pub fn forward(&self, cx: &Cx, x: &Tensor, images: usize) -> Result<(Tensor, Saved)> {
        let (all, views) = (x.shape().rows(), images * (1 + self.local));
        if views == 0 || all % views != 0 {
            return Err(Error::Range {
                op: "connector",
                what: "images",
                value: images.to_string(),
                allowed: format!(
                    "a number whose {} views each divide the {all} rows of x evenly",
                    1 + self.local
                ),
            });
        }
        let (n, d) = (all / views, x.shape().cols());
        let rows = images * n;
        let (global, sg) =
            layernorm::forward(cx, &x.rows(0..rows)?.reshape([images, n, d])?, &self.norms[0])?;
        let (local, sl) = match self.local {
            0 => (None, None),
            tiles => {
                let x = x.rows(rows..x.shape().rows())?.reshape([images * tiles, n, d])?;
                let (y, s) = layernorm::forward(cx, &x, &self.norms[1])?;
                (Some(y), Some(s))
            }
        };
        let media = tile_embed::forward(cx, &global, local.as_ref(), &self.tiles)?;
        Ok((media, Saved { global: sg, local: sl, images, tokens: n }))
    }

    /// The gradient of the tower's hidden state, with the rows ordered as in [`Connector::forward`].
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn backward(&self, cx: &Cx, saved: &Saved, dmedia: &Tensor, grads: &mut Grads) -> Result<Tensor> {
        let d = dmedia.shape().cols();
        let dmedia = dmedia.reshape([saved.images, (1 + self.local) * saved.tokens, d])?;
        let (global, local) =
            tile_embed::backward(cx, &dmedia, saved.images, self.local, &self.tiles, Some(&mut *grads))?;
        let global = layernorm::backward(cx, &saved.global, &global, &self.norms[0], Some(&mut *grads))?;
        match (&saved.local, local) {
            (Some(s), Some(dy)) => {
                let local = layernorm::backward(cx, s, &dy, &self.norms[1], Some(grads))?;
                rows::concat(cx, &[&global, &local])
            }
            _ => Ok(global),
        }
    }
}
