//! One parallel block: x + attention(h) + mlp(h) with h = LN(x).

use pheye_ops::attention::{self, Cache, Heads, Kv, Layout};
use pheye_ops::gelu::{self, Gelu};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::{self, BackwardEpilogue, Epilogue, Linear};
use pheye_ops::rotary::{self, Rotary};
use pheye_ops::{Cx, Result};
use pheye_tensor::{Grads, Init, Param, Scope, Tensor};

use crate::Config;

/// The parameters of one block.
#[derive(Debug)]
pub struct Block {
    norm: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    dense: Linear,
    fc1: Linear,
    fc2: Linear,
    heads: Heads,
}

/// Values that the backward of a block needs.
#[derive(Debug)]
pub struct Saved {
    norm: layernorm::Saved,
    qkv: [linear::Saved; 3],
    attention: attention::Saved,
    dense: linear::Saved,
    fc1: linear::Saved,
    act: Option<gelu::Saved>,
    fc2: linear::Saved,
}

impl Block {
    pub(crate) fn new(scope: &mut Scope, c: &Config) -> Block {
        let (d, inner) = (c.hidden_size, c.intermediate_size);
        let mut attn = scope.at("self_attn");
        let [q, k, v, dense] = ["q_proj", "k_proj", "v_proj", "dense"]
            .map(|name| Linear::new(&mut attn.at(name), d, d, true, Init::fan_in(d)));
        let mut mlp = scope.at("mlp");
        let fc1 = Linear::new(&mut mlp.at("fc1"), d, inner, true, Init::fan_in(d));
        let fc2 = Linear::new(&mut mlp.at("fc2"), inner, d, true, Init::fan_in(inner));
        let norm = LayerNorm::new(&mut scope.at("input_layernorm"), d, c.layer_norm_eps);
        let head_dim = c.head_dim();
        let scale = (head_dim as f32).sqrt().recip();
        let heads = Heads { heads: c.num_attention_heads, head_dim, scale, causal: true };
        Block { norm, q, k, v, dense, fc1, fc2, heads }
    }

    /// All parameters of the block.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.norm.params_mut();
        for p in [&mut self.q, &mut self.k, &mut self.v, &mut self.dense, &mut self.fc1, &mut self.fc2] {
            all.extend(p.params_mut());
        }
        all
    }

    /// y [rows, d] for packed x [rows, d]. With a cache, the new keys and values are appended to it first, and the
    /// queries attend to the cache; the saved tensors must then be dropped before the next call.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn forward(
        &self,
        cx: &Cx,
        x: &Tensor,
        layout: &Layout,
        rotary: &Rotary,
        cache: Option<&mut Cache>,
    ) -> Result<(Tensor, Saved)> {
        let (h, norm) = layernorm::forward(cx, x, &self.norm)?;
        let linears = rotary::Linears {
            qkv: [&self.q, &self.k, &self.v],
            other: (&self.fc1, Epilogue::gelu(Gelu::Tanh)),
            positions: &layout.positions,
            rotary,
        };
        let attend = |q, k, v| attention::forward(cx, q, Kv::Split { k, v }, &layout.spans, &self.heads);
        let (projected, (o, attention)) = match cache {
            None => {
                let (projected, [k, v]) = linears.forward(cx, &h)?;
                let attended = attend(&projected.q, &k, &v)?;
                (projected, attended)
            }
            Some(cache) => {
                let into = rotary::Cache { k: &mut cache.k, v: &mut cache.v, rows: &layout.cache_rows };
                let projected = linears.forward_cached(cx, &h, into)?;
                let attended = attend(&projected.q, &cache.k, &cache.v)?;
                (projected, attended)
            }
        };
        let rotary::Projected { saved: qkv, other: (g, fc1, act), .. } = projected;
        let (x1, dense, _) = linear::forward_with(cx, &o, &self.dense, Epilogue::residual(x))?;
        let (y, fc2, _) = linear::forward_with(cx, &g, &self.fc2, Epilogue::residual(&x1))?;
        Ok((y, Saved { norm, qkv, attention, dense, fc1, act, fc2 }))
    }

    /// dx for dy [rows, d]; the gradients of trained parameters are accumulated in `grads`.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn backward(
        &self,
        cx: &Cx,
        s: &Saved,
        dy: Tensor,
        layout: &Layout,
        rotary: &Rotary,
        mut grads: Option<&mut Grads>,
    ) -> Result<Tensor> {
        let slope = BackwardEpilogue { gelu: s.act.as_ref().map(|u| (u, Gelu::Tanh)), sum: None };
        let du = linear::backward_with(cx, &s.fc2, &dy, &self.fc2, slope, grads.as_deref_mut())?;
        let mut dh = linear::backward(cx, &s.fc1, &du, &self.fc1, grads.as_deref_mut())?;
        let d_o = linear::backward(cx, &s.dense, &dy, &self.dense, grads.as_deref_mut())?;
        let (dq, dkv) = attention::backward(cx, &s.attention, &d_o, &layout.spans, &self.heads)?;
        let dq = rotary::backward(cx, dq, &layout.positions, rotary)?;
        let [sq, sk, sv] = &s.qkv;
        dh = linear::backward_with(cx, sq, &dq, &self.q, BackwardEpilogue::sum(&dh), grads.as_deref_mut())?;
        if let Kv::Split { k, v } = dkv {
            let dk = rotary::backward(cx, k, &layout.positions, rotary)?;
            for (s, dy, p) in [(sk, &dk, &self.k), (sv, &v, &self.v)] {
                dh = linear::backward_with(cx, s, dy, p, BackwardEpilogue::sum(&dh), grads.as_deref_mut())?;
            }
        }
        layernorm::backward_residual(cx, &s.norm, &dh, dy, &self.norm, grads)
    }
}
