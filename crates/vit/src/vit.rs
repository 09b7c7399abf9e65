//! The whole tower: patch embedding with class token and position embedding, `pre_layrnorm` (spelled so in CLIP's
//! checkpoints), and the blocks.

use pheye_ops::attention::Span;
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::Linear;
use pheye_ops::lora::{Route, RowRange};
use pheye_ops::patch_embed::{self, PatchEmbed};
use pheye_ops::{Cx, Result};
use pheye_tensor::{Grads, Init, Param, Scope, Tensor};

use crate::modules::Modules;
use crate::{AdapterSpec, Block, Config, block};

/// CLIP's vision transformer.
#[derive(Debug)]
pub struct Vit {
    pub(crate) config: Config,
    embed: PatchEmbed,
    pre_norm: LayerNorm,
    blocks: Vec<Block>,
    pub(crate) post_norm: LayerNorm,
    /// The number of blocks, counted from the first, that save only their input and are recomputed in backward. This
    /// takes less memory and more time; the gradients are the same.
    pub recompute: usize,
}

/// Values that the backward of the tower needs.
#[derive(Debug)]
pub struct Saved {
    embed: patch_embed::Saved,
    pre_norm: layernorm::Saved,
    blocks: Vec<Kept>,
    spans: Vec<Span>,
    tiles: Route,
    tokens: Route,
}

/// Values that the backward of a block needs, or its input if the block is recomputed.
#[derive(Debug)]
enum Kept {
    All(Box<block::Saved>),
    Input(Tensor),
}

impl Vit {
    /// The tower at `scope`. `adapters[i]` is the adapter that [`RowRange::adapter`] `Some(i)` selects.
    ///
    /// # Errors
    /// When the sizes are inconsistent.
    pub fn new(
        scope: &mut Scope,
        config: &Config,
        adapters: &[Option<AdapterSpec>],
    ) -> std::result::Result<Vit, crate::Error> {
        config.validate()?;
        let (d, p) = (config.hidden_size, config.patch_size);
        let mut modules = Modules { adapters, next: 0 };
        let mut e = scope.at("embeddings");
        let mut conv = e.at("patch_embedding");
        let weight = conv.at("base_layer").param("weight", [d, 3, p, p], Init::fan_in(3 * p * p));
        let base = Linear { weight, bias: None };
        let conv = modules.lora(&mut conv, base, |r| [r, 3, p, p].into(), |r| [d, r, 1, 1].into());
        let class = e.param("class_embedding", [d], Init::Normal(0.3));
        let position = e.at("position_embedding").param("weight", [config.tokens(), d], Init::Normal(0.3));
        let embed = PatchEmbed { conv, class, position, patch: p };
        let pre_norm = LayerNorm::new(&mut scope.at("pre_layrnorm"), d, config.layer_norm_eps);
        let mut layers = scope.at("encoder");
        let mut layers = layers.at("layers");
        let blocks = (0..config.num_hidden_layers)
            .map(|i| Block::new(&mut layers.at(i), config, &mut modules))
            .collect();
        let post_norm = LayerNorm::new(&mut scope.at("post_layernorm"), d, config.layer_norm_eps);
        Ok(Vit { config: config.clone(), embed, pre_norm, blocks, post_norm, recompute: 0 })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All parameters, in network order.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.embed.params_mut();
        all.extend(self.pre_norm.params_mut());
        all.extend(self.blocks.iter_mut().flat_map(Block::params_mut));
        all.extend(self.post_norm.params_mut());
        all
    }

    /// Last hidden state [t, tokens, d] of pixels [t, 3, s, s]. `route` assigns adapters to tiles.
    ///
    /// # Errors
    /// When the pixels have another shape, the route is invalid, or a GPU fails.
    pub fn forward(&self, cx: &Cx, pixels: &Tensor, route: &Route) -> Result<(Tensor, Saved)> {
        let mut blocks = Vec::with_capacity(self.blocks.len());
        let (x, saved) = self.run(cx, pixels, route, |x, b| {
            let again = blocks.len() < self.recompute;
            blocks.push(if again { Kept::Input(x.clone()) } else { Kept::All(Box::new(b)) });
        })?;
        Ok((x, Saved { blocks, ..saved }))
    }

    /// [`Vit::forward`] for inference: the tensors that a block saves are dropped immediately.
    ///
    /// # Errors
    /// The errors of [`Vit::forward`].
    pub fn infer(&self, cx: &Cx, pixels: &Tensor, route: &Route) -> Result<Tensor> {
        self.run(&cx.inference(), pixels, route, |_, _| ()).map(|(x, _)| x)
    }

    fn run(
        &self,
        cx: &Cx,
        pixels: &Tensor,
        route: &Route,
        mut keep: impl FnMut(&Tensor, block::Saved),
    ) -> Result<(Tensor, Saved)> {
        let n = self.config.tokens();
        let pixels = cx.upload(pixels)?;
        let (x, embed) = patch_embed::forward(cx, &pixels, &self.embed, route)?;
        let tiles = x.shape().rows() / n;
        let spans: Vec<Span> =
            (0..tiles).map(|t| Span { q: t * n..(t + 1) * n, k: t * n..(t + 1) * n }).collect();
        let ranges =
            route.ranges.iter().map(|r| RowRange { rows: r.rows.start * n..r.rows.end * n, ..r.clone() });
        let tokens = Route { ranges: ranges.collect(), dropout: route.dropout };
        let (mut x, pre_norm) = layernorm::forward(cx, &x, &self.pre_norm)?;
        for block in &self.blocks {
            let (y, saved) = block.forward(cx, &x, &spans, &tokens)?;
            keep(&x, saved);
            x = y;
        }
        Ok((x, Saved { embed, pre_norm, blocks: Vec::new(), spans, tiles: route.clone(), tokens }))
    }

    /// Accumulates the gradients of trained parameters in `grads`, given the gradient `dx` of the last hidden state.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn backward(&self, cx: &Cx, mut saved: Saved, dx: Tensor, grads: &mut Grads) -> Result<()> {
        let mut dx = dx;
        for block in self.blocks.iter().rev() {
            let s = match saved.blocks.pop() {
                None => break,
                Some(Kept::All(s)) => *s,
                Some(Kept::Input(x)) => block.forward(cx, &x, &saved.spans, &saved.tokens)?.1,
            };
            dx = block.backward(cx, &s, dx, &saved.spans, &saved.tokens, Some(&mut *grads))?;
        }
        let dx = layernorm::backward(cx, &saved.pre_norm, &dx, &self.pre_norm, Some(&mut *grads))?;
        patch_embed::backward(cx, &saved.embed, &dx, &self.embed, &saved.tiles, Some(grads))
    }
}
