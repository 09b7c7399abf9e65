//! The first half of a block: x + c_proj(attention(c_attn(LN x))).

use pheye_ops::attention::{self, Cache, Heads, Kv, Layout};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::{self, BackwardEpilogue, Epilogue, Linear};
use pheye_ops::{Cx, Result};
use pheye_tensor::{Grads, Init, Param, Scope, Tensor};

use crate::Config;

/// The parameters of causal self-attention with its LayerNorm.
#[derive(Debug)]
pub struct Attention {
    norm: LayerNorm,
    /// q, k and v, which published files hold as one matrix.
    c_attn: [Linear; 3],
    c_proj: Linear,
    heads: Heads,
}

/// Values that the backward of attention needs.
#[derive(Debug)]
pub struct Saved {
    norm: layernorm::Saved,
    c_attn: [linear::Saved; 3],
    attention: attention::Saved,
    c_proj: linear::Saved,
}

impl Attention {
    /// The half at the scope of its block.
    pub(crate) fn new(scope: &mut Scope, c: &Config) -> Attention {
        let d = c.n_embd;
        let norm = LayerNorm::new(&mut scope.at("ln_1"), d, c.layer_norm_epsilon);
        let mut attn = scope.at("attn");
        let c_attn = ["q", "k", "v"].map(|part| {
            Linear::new(&mut attn.at("c_attn").at(part), d, d, true, Init::Normal(crate::block::STD))
        });
        let c_proj = Linear::new(&mut attn.at("c_proj"), d, d, true, crate::block::residual_init(c));
        let head_dim = c.head_dim();
        let scale = (head_dim as f32).sqrt().recip();
        Attention { norm, c_attn, c_proj, heads: Heads { heads: c.n_head, head_dim, scale, causal: true } }
    }

    /// All parameters.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.norm.params_mut();
        all.extend(self.c_attn.iter_mut().flat_map(Linear::params_mut));
        all.extend(self.c_proj.params_mut());
        all
    }

    /// y [rows, d] for packed x [rows, d]. With a cache, the new keys and values are written to it first, and the
    /// queries attend to the cache; the saved tensors must then be dropped before the next call.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn forward(
        &self,
        cx: &Cx,
        x: &Tensor,
        layout: &Layout,
        cache: Option<&mut Cache>,
    ) -> Result<(Tensor, Saved)> {
        let (h, norm) = layernorm::forward(cx, x, &self.norm)?;
        let linears = self.c_attn.each_ref().map(|p| (p, Epilogue::default()));
        let [(q, sq, _), (k, sk, _), (v, sv, _)] = linear::forward_several(cx, &h, linears)?;
        let kv = match cache {
            None => Kv::Split { k: &k, v: &v },
            Some(cache) => {
                cache.write(cx, &k, &v, &layout.cache_rows)?;
                Kv::Split { k: &cache.k, v: &cache.v }
            }
        };
        let (o, attention) = attention::forward(cx, &q, kv, &layout.spans, &self.heads)?;
        let (y, c_proj, _) = linear::forward_with(cx, &o, &self.c_proj, Epilogue::residual(x))?;
        Ok((y, Saved { norm, c_attn: [sq, sk, sv], attention, c_proj }))
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
        mut grads: Option<&mut Grads>,
    ) -> Result<Tensor> {
        let d_o = linear::backward(cx, &s.c_proj, &dy, &self.c_proj, grads.as_deref_mut())?;
        let (dq, dkv) = attention::backward(cx, &s.attention, &d_o, &layout.spans, &self.heads)?;
        let ([sq, sk, sv], [q, k, v]) = (&s.c_attn, &self.c_attn);
        let mut dh = linear::backward(cx, sq, &dq, q, grads.as_deref_mut())?;
        if let Kv::Split { k: dk, v: dv } = dkv {
            for (s, dy, p) in [(sk, &dk, k), (sv, &dv, v)] {
                dh = linear::backward_with(cx, s, dy, p, BackwardEpilogue::sum(&dh), grads.as_deref_mut())?;
            }
        }
        layernorm::backward_residual(cx, &s.norm, &dh, dy, &self.norm, grads)
    }
}
