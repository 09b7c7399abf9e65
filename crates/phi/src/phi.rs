//! The whole model: token embedding, blocks, final LayerNorm, and an untied output head with bias.

use pheye_ops::layernorm::LayerNorm;
use pheye_ops::linear::Linear;
use pheye_ops::rotary::Rotary;
use pheye_ops::{Cx, Result, cross_entropy, embedding, layernorm, linear};
use pheye_tensor::{Grads, Init, Param, Scope, Tensor};

use crate::block::Saved;
use crate::{Block, Cache, Config, Layout};

/// The Phi language model.
///
/// The parts are public, so that a model with its own layers between the blocks, such as Pheye, can run them itself.
#[derive(Debug)]
pub struct Phi {
    /// The configuration.
    pub config: Config,
    /// Token embedding [vocab_size, d].
    pub embed: Param,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// LayerNorm before the head.
    pub final_norm: LayerNorm,
    /// Output head [vocab_size, d] with bias.
    pub head: Linear,
    /// Rotary tables, shared by all blocks.
    pub rotary: Rotary,
}

impl Phi {
    /// The model at `scope`. Its blocks are named `old_decoder_blocks`, as in Pheye's checkpoints.
    ///
    /// # Errors
    /// When the sizes are inconsistent.
    pub fn new(scope: &mut Scope, config: &Config) -> std::result::Result<Phi, crate::Error> {
        config.validate()?;
        let d = config.hidden_size;
        let mut model = scope.at("model");
        let embed = model.at("embed_tokens").param("weight", [config.vocab_size, d], Init::Normal(0.5));
        let final_norm = LayerNorm::new(&mut model.at("final_layernorm"), d, config.layer_norm_eps);
        let head = Linear::new(&mut scope.at("lm_head"), d, config.vocab_size, true, Init::fan_in(d));
        let mut layers = scope.at("old_decoder_blocks");
        let blocks = (0..config.num_hidden_layers).map(|i| Block::new(&mut layers.at(i), config)).collect();
        let (heads, context) = (config.num_attention_heads, config.max_position_embeddings);
        let frequencies = [config.rope_theta, config.rope_factor];
        let rotary = Rotary::scaled(heads, config.head_dim(), config.rotary_dim(), frequencies, context);
        Ok(Phi { config: config.clone(), embed, blocks, final_norm, head, rotary })
    }

    /// All parameters, in network order.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = vec![&mut self.embed];
        all.extend(self.blocks.iter_mut().flat_map(Block::params_mut));
        all.extend(self.final_norm.params_mut());
        all.extend(self.head.params_mut());
        all
    }

    /// Logits [rows, vocab_size] for packed token ids, from the language model alone.
    ///
    /// # Errors
    /// When an id is outside the vocabulary, the layout does not fit, or a GPU fails.
    pub fn logits(
        &self,
        cx: &Cx,
        ids: &[u32],
        layout: &Layout,
        mut cache: Option<&mut [Cache]>,
    ) -> Result<Tensor> {
        let mut x = embedding::forward(cx, ids, &self.embed)?;
        for (i, block) in self.blocks.iter().enumerate() {
            let cache = cache.as_deref_mut().and_then(|c| c.get_mut(i));
            x = block.forward(cx, &x, layout, &self.rotary, cache)?.0;
        }
        let (x, _) = layernorm::forward(cx, &x, &self.final_norm)?;
        Ok(linear::forward(cx, &x, &self.head)?.0)
    }

    /// Next-token loss of packed sequences, summed over the targets other than -100. If `grads` is given, the gradients
    /// of the sum are accumulated in it. Returns the sum and the number of targets.
    ///
    /// # Errors
    /// When an id is outside the vocabulary, the layout does not fit, or a GPU fails.
    pub fn next_token_loss(
        &self,
        cx: &Cx,
        ids: &[u32],
        targets: &[i64],
        layout: &Layout,
        mut grads: Option<&mut Grads>,
    ) -> Result<(f64, usize)> {
        let mut x = embedding::forward(cx, ids, &self.embed)?;
        let mut tape: Vec<Saved> = Vec::new();
        for block in &self.blocks {
            let (y, saved) = block.forward(cx, &x, layout, &self.rotary, None)?;
            x = y;
            tape.extend(grads.is_some().then_some(saved));
        }
        let (x, norm) = layernorm::forward(cx, &x, &self.final_norm)?;
        let loss = cross_entropy::run(cx, &x, &self.head, targets, grads.is_some(), grads.as_deref_mut())?;
        if let (Some(grads), Some(dx)) = (grads, loss.dx) {
            let mut dx = layernorm::backward(cx, &norm, &dx, &self.final_norm, Some(&mut *grads))?;
            for block in self.blocks.iter().rev() {
                let Some(saved) = tape.pop() else { break };
                dx = block.backward(cx, &saved, dx, layout, &self.rotary, Some(&mut *grads))?;
            }
            embedding::backward(cx, ids, &dx, &self.embed, Some(grads))?;
        }
        Ok((loss.sum, loss.tokens))
    }
}
