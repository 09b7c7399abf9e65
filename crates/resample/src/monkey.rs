//! The resampler of Monkey and Qwen-VL: one attention of learnt queries to the image tokens, without a residual
//! connection and without an MLP. y = out(attention(q(LN queries + P), k(LN x + P), v(LN x))).

use pheye_ops::attention::{self, Heads, Kv, Span};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::{self, BackwardEpilogue, Linear};
use pheye_ops::{Cx, Result, embedding};
use pheye_tensor::{Device, Grads, Init, Param, Scope, Tensor};

use crate::MonkeyConfig;
use crate::batch::{check, repeated, spans};
use crate::positions::Positions;

/// The parameters of a Monkey resampler, and its constant position tables.
#[derive(Debug)]
pub struct Monkey {
    query: Param,
    norm_q: LayerNorm,
    norm_kv: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: Heads,
    of_queries: Positions,
    of_tokens: Positions,
}

/// Values that the backward of a Monkey resampler needs.
#[derive(Debug)]
pub struct Saved {
    queries: Vec<u32>,
    spans: Vec<Span>,
    norm_q: layernorm::Saved,
    norm_kv: layernorm::Saved,
    qkv: [linear::Saved; 3],
    attention: attention::Saved,
    out: linear::Saved,
}

impl Monkey {
    /// The resampler at `scope`, for images of tiles of `tokens` tokens, which are `width` wide.
    ///
    /// # Errors
    /// When the sizes are inconsistent.
    pub fn new(
        scope: &mut Scope,
        config: &MonkeyConfig,
        width: usize,
        tokens: usize,
    ) -> std::result::Result<Monkey, crate::Error> {
        config.validate(width, tokens)?;
        let query = scope.param("query", [config.queries, width], Init::Normal(0.02));
        let norm_q = LayerNorm::new(&mut scope.at("ln_q"), width, 1e-6);
        let norm_kv = LayerNorm::new(&mut scope.at("ln_kv"), width, 1e-6);
        let mut attn = scope.at("attn");
        let mut linear = |name, init| Linear::new(&mut attn.at(name), width, width, config.bias, init);
        // Xavier-uniform for the three stacked in one matrix [3·width, width], as torch.nn.MultiheadAttention has them.
        let init = Init::Uniform((1.5 / width as f32).sqrt());
        let [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(|name| linear(name, init));
        let out = linear("out_proj", Init::Normal(0.02));
        let head_dim = width / config.heads;
        let scale = (head_dim as f32).sqrt().recip();
        let heads = Heads { heads: config.heads, head_dim, scale, causal: false };
        let (of_queries, of_tokens) = (Positions::new(config.queries, width), Positions::new(tokens, width));
        Ok(Monkey { query, norm_q, norm_kv, q, k, v, out, heads, of_queries, of_tokens })
    }

    /// All parameters, in network order.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = vec![&mut self.query];
        all.extend(self.norm_q.params_mut());
        all.extend(self.norm_kv.params_mut());
        for p in [&mut self.q, &mut self.k, &mut self.v, &mut self.out] {
            all.extend(p.params_mut());
        }
        all
    }

    /// Moves the position tables, which are no parameters, to `device`; otherwise each forward pass uploads them.
    ///
    /// # Errors
    /// [`pheye_ops::Error::Tensor`] when the device is out of memory.
    pub fn move_to(&mut self, device: &Device) -> Result<()> {
        self.of_queries.move_to(device)?;
        self.of_tokens.move_to(device)
    }

    /// y [images, queries, width] for the tokens x [rows, width] of all images, of which image i has `lengths[i]`:
    /// those of its tiles, one tile after another.
    ///
    /// # Errors
    /// [`pheye_ops::Error::Range`] when a length is not that of whole tiles, or x has another number of rows, and an
    /// error when x has another width, or a GPU is out of memory or fails.
    pub fn forward(&self, cx: &Cx, x: &Tensor, lengths: &[usize]) -> Result<(Tensor, Saved)> {
        let (tokens, m) = (self.of_tokens.rows(), self.of_queries.rows());
        check(x, lengths, tokens)?;
        let queries = repeated(m, lengths.len());
        let (h, norm_q) =
            layernorm::forward(cx, &embedding::forward(cx, &queries, &self.query)?, &self.norm_q)?;
        let (q, sq) = linear::forward(cx, &self.of_queries.add_to(cx, &h, &queries)?, &self.q)?;
        let (h, norm_kv) = layernorm::forward(cx, x, &self.norm_kv)?;
        let tiles = repeated(tokens, x.shape().rows() / tokens);
        let (k, sk) = linear::forward(cx, &self.of_tokens.add_to(cx, &h, &tiles)?, &self.k)?;
        let (v, sv) = linear::forward(cx, &h, &self.v)?;
        let spans = spans(m, lengths.iter().copied());
        let (o, attention) = attention::forward(cx, &q, Kv::Split { k: &k, v: &v }, &spans, &self.heads)?;
        let (y, out) = linear::forward(cx, &o, &self.out)?;
        let y = y.reshape([lengths.len(), m, y.shape().cols()])?;
        Ok((y, Saved { queries, spans, norm_q, norm_kv, qkv: [sq, sk, sv], attention, out }))
    }

    /// dx [rows, width] for dy [images, queries, width]; the gradients of trained parameters are accumulated in
    /// `grads`.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn backward(&self, cx: &Cx, s: &Saved, dy: &Tensor, grads: &mut Grads) -> Result<Tensor> {
        let d_o = linear::backward(cx, &s.out, dy, &self.out, Some(&mut *grads))?;
        let (dq, dkv) = attention::backward(cx, &s.attention, &d_o, &s.spans, &self.heads)?;
        let (dk, dv) = match dkv {
            Kv::Split { k, v } => (k, v),
            Kv::Fused(_) => unreachable!("keys and values are separate"),
        };
        let [sq, sk, sv] = &s.qkv;
        // A position table is a constant summand, so the gradient passes it unchanged.
        let dh = linear::backward(cx, sq, &dq, &self.q, Some(&mut *grads))?;
        let dquery = layernorm::backward(cx, &s.norm_q, &dh, &self.norm_q, Some(&mut *grads))?;
        embedding::backward(cx, &s.queries, &dquery, &self.query, Some(&mut *grads))?;
        let dh = linear::backward(cx, sk, &dk, &self.k, Some(&mut *grads))?;
        let dh = linear::backward_with(cx, sv, &dv, &self.v, BackwardEpilogue::sum(&dh), Some(&mut *grads))?;
        layernorm::backward(cx, &s.norm_kv, &dh, &self.norm_kv, Some(grads))
    }
}
