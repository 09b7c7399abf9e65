//! The whole model: token and position embeddings, blocks, final LayerNorm, and the token embedding again as head.

use pheye_ops::attention::{Cache, Layout};
use pheye_ops::layernorm::LayerNorm;
use pheye_ops::linear::Linear;
use pheye_ops::{Cx, Error, Result, add, cross_entropy, embedding, layernorm, linear, rows};
use pheye_tensor::{Grads, Init, Param, Scope, Tensor};

use crate::block::{STD, Saved};
use crate::{Block, Config};

/// The GPT-2 language model (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019).
///
/// The parts are public, so that a model with other rows before the text, or with its own layers inside the blocks, can
/// run them itself.
#[derive(Debug)]
pub struct Gpt2 {
    /// The configuration.
    pub config: Config,
    /// `wte` [vocab_size, d] without bias: the output head, whose weight is also the token embedding.
    pub head: Linear,
    /// Position embedding [n_positions, d].
    pub wpe: Param,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// LayerNorm before the head.
    pub final_norm: LayerNorm,
}

impl Gpt2 {
    /// The model at `scope`, with the names of published files below `transformer.`, except that the parts of
    /// `h.N.attn.c_attn` are `q`, `k` and `v` ([`crate::hub::stored`]).
    ///
    /// # Errors
    /// When the sizes are inconsistent.
    pub fn new(scope: &mut Scope, config: &Config) -> crate::Result<Gpt2> {
        config.validate()?;
        let (d, init) = (config.n_embd, Init::Normal(STD));
        let head = Linear::new(&mut scope.at("wte"), d, config.vocab_size, false, init);
        let wpe = scope.at("wpe").param("weight", [config.n_positions, d], init);
        let mut layers = scope.at("h");
        let blocks = (0..config.n_layer).map(|i| Block::new(&mut layers.at(i), config)).collect();
        let final_norm = LayerNorm::new(&mut scope.at("ln_f"), d, config.layer_norm_epsilon);
        Ok(Gpt2 { config: config.clone(), head, wpe, blocks, final_norm })
    }

    /// All parameters, in network order.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.head.params_mut();
        all.push(&mut self.wpe);
        all.extend(self.blocks.iter_mut().flat_map(Block::params_mut));
        all.extend(self.final_norm.params_mut());
        all
    }

    /// Empty caches, one for each block, for `sequences` sequences of up to `capacity` tokens.
    ///
    /// # Errors
    /// When a GPU is out of memory.
    pub fn caches(&self, cx: &Cx, sequences: usize, capacity: usize) -> Result<Vec<Cache>> {
        self.blocks.iter().map(|_| Cache::new(cx, sequences, capacity, self.config.n_embd)).collect()
    }

    /// The token embeddings [ids, d], without positions.
    ///
    /// # Errors
    /// When an id is outside the vocabulary, or a GPU fails.
    pub fn embed(&self, cx: &Cx, ids: &[u32]) -> Result<Tensor> {
        embedding::forward(cx, ids, &self.head.weight)
    }

    /// x [rows, d] plus the embedding of each row's position: the input of the first block. The gradient of x is that of
    /// the sum.
    ///
    /// # Errors
    /// [`Error::Range`] when a position is outside the context, [`Error::Shapes`] when there is not one for each row.
    pub fn add_positions(&self, cx: &Cx, x: Tensor, positions: &[u32]) -> Result<Tensor> {
        let context = self.wpe.shape().rows();
        if let Some(position) = positions.iter().find(|&&position| position as usize >= context) {
            let (value, allowed) = (position.to_string(), format!("0..{context}"));
            return Err(Error::Range { op: "gpt2", what: "position", value, allowed });
        }
        add::forward(cx, x, &embedding::forward(cx, positions, &self.wpe)?)
    }

    /// The residual stream [rows, d] after the last block. What each block saves is given to `keep`.
    fn hidden(
        &self,
        cx: &Cx,
        ids: &[u32],
        layout: &Layout,
        mut cache: Option<&mut [Cache]>,
        mut keep: impl FnMut(Saved),
    ) -> Result<Tensor> {
        let mut x = self.add_positions(cx, self.embed(cx, ids)?, &layout.positions)?;
        for (i, block) in self.blocks.iter().enumerate() {
            let cache = cache.as_deref_mut().and_then(|c| c.get_mut(i));
            let (y, saved) = block.forward(cx, &x, layout, cache)?;
            keep(saved);
            x = y;
        }
        Ok(x)
    }

    /// Logits [rows, vocab_size] for packed token ids.
    ///
    /// # Errors
    /// When an id is outside the vocabulary, the layout does not fit, or a GPU fails.
    pub fn logits(
        &self,
        cx: &Cx,
        ids: &[u32],
        layout: &Layout,
        cache: Option<&mut [Cache]>,
    ) -> Result<Tensor> {
        let cx = &cx.inference();
        let x = self.hidden(cx, ids, layout, cache, drop)?;
        let (x, _) = layernorm::forward(cx, &x, &self.final_norm)?;
        Ok(linear::forward(cx, &x, &self.head)?.0)
    }

    /// Logits [sequences with new tokens, vocab_size] after the last token of each, for choosing the next one.
    ///
    /// # Errors
    /// When an id is outside the vocabulary, the layout does not fit, or a GPU fails.
    pub fn next_logits(
        &self,
        cx: &Cx,
        ids: &[u32],
        layout: &Layout,
        cache: Option<&mut [Cache]>,
    ) -> Result<Tensor> {
        let cx = &cx.inference();
        let x = self.hidden(cx, ids, layout, cache, drop)?;
        let last: Vec<usize> = layout.spans.iter().map(|s| s.q.end - 1).collect();
        let (x, _) = layernorm::forward(cx, &rows::gather(cx, &x, &last)?, &self.final_norm)?;
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
        let mut tape = Vec::new();
        let with_grads = grads.is_some();
        let x = self.hidden(cx, ids, layout, None, |saved| tape.extend(with_grads.then_some(saved)))?;
        let (x, norm) = layernorm::forward(cx, &x, &self.final_norm)?;
        let loss = cross_entropy::run(cx, &x, &self.head, targets, with_grads, grads.as_deref_mut())?;
        if let (Some(grads), Some(dx)) = (grads, loss.dx) {
            let mut dx = layernorm::backward(cx, &norm, &dx, &self.final_norm, Some(&mut *grads))?;
            for block in self.blocks.iter().rev() {
                let Some(saved) = tape.pop() else { break };
                dx = block.backward(cx, &saved, dx, layout, Some(&mut *grads))?;
            }
            embedding::backward(cx, &layout.positions, &dx, &self.wpe, Some(&mut *grads))?;
            embedding::backward(cx, ids, &dx, &self.head.weight, Some(grads))?;
        }
        Ok((loss.sum, loss.tokens))
    }
}
