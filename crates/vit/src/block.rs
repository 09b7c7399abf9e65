//! One pre-norm block: x + attention(LN x), then + MLP(LN x).

use pheye_ops::attention::{self, Heads, Kv, Span};
use pheye_ops::gelu::{self, Gelu};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::{BackwardEpilogue, Epilogue};
use pheye_ops::lora::{self, LoraLinear, Normed, Route};
use pheye_ops::{Cx, Result};
use pheye_tensor::{Grads, Param, Scope, Tensor};

use crate::modules::Modules;
use crate::{Config, HiddenAct};

/// The parameters of one block.
#[derive(Debug)]
pub struct Block {
    norm1: LayerNorm,
    q: LoraLinear,
    k: LoraLinear,
    v: LoraLinear,
    out: LoraLinear,
    norm2: LayerNorm,
    fc1: LoraLinear,
    fc2: LoraLinear,
    act: Gelu,
    heads: Heads,
}

/// Values that the backward of a block needs.
#[derive(Debug)]
pub struct Saved {
    norm1: layernorm::Saved,
    qkv: [lora::Saved; 3],
    attention: attention::Saved,
    out: lora::Saved,
    norm2: layernorm::Saved,
    fc1: lora::Saved,
    act: Option<gelu::Saved>,
    fc2: lora::Saved,
    /// Whether backward of fc2 needs its input. It is recomputed from `act`, which costs one pass over it and saves a
    /// fifth of the memory.
    fc2_input: bool,
}

impl Block {
    pub(crate) fn new(scope: &mut Scope, c: &Config, modules: &mut Modules) -> Block {
        let (d, inner) = (c.hidden_size, c.intermediate_size);
        let mut attn = scope.at("self_attn");
        let [k, v, q, out] =
            ["k_proj", "v_proj", "q_proj", "out_proj"].map(|name| modules.linear(&mut attn.at(name), d, d));
        let norm1 = LayerNorm::new(&mut scope.at("layer_norm1"), d, c.layer_norm_eps);
        let mut mlp = scope.at("mlp");
        let fc1 = modules.linear(&mut mlp.at("fc1"), d, inner);
        let fc2 = modules.linear(&mut mlp.at("fc2"), inner, d);
        let norm2 = LayerNorm::new(&mut scope.at("layer_norm2"), d, c.layer_norm_eps);
        let act = match c.hidden_act {
            HiddenAct::QuickGelu => Gelu::Quick,
            HiddenAct::Gelu => Gelu::Exact,
        };
        let head_dim = c.head_dim();
        let scale = (head_dim as f32).sqrt().recip();
        let heads = Heads { heads: c.num_attention_heads, head_dim, scale, causal: false };
        Block { norm1, q, k, v, out, norm2, fc1, fc2, act, heads }
    }

    pub(crate) fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.norm1.params_mut();
        for p in [&mut self.q, &mut self.k, &mut self.v, &mut self.out] {
            all.extend(p.params_mut());
        }
        all.extend(self.norm2.params_mut());
        all.extend(self.fc1.params_mut());
        all.extend(self.fc2.params_mut());
        all
    }

    /// y [rows, d] for x [rows, d]; each span holds the rows of one tile.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn forward(&self, cx: &Cx, x: &Tensor, spans: &[Span], route: &Route) -> Result<(Tensor, Saved)> {
        let qkv = [&self.q, &self.k, &self.v];
        let Normed { y: h, saved: norm1, downs } = lora::norm_down(cx, x, &self.norm1, qkv, route)?;
        let [dq, dk, dv] = downs;
        let plain = Epilogue::default();
        let qkv = [(&self.q, dq, plain), (&self.k, dk, plain), (&self.v, dv, plain)];
        let [(q, sq, _), (k, sk, _), (v, sv, _)] = lora::forward_several(cx, &h, qkv, route)?;
        drop(h);
        let (o, attention) = attention::forward(cx, &q, Kv::Split { k: &k, v: &v }, spans, &self.heads)?;
        let (x1, out, _) = lora::forward_with(cx, &o, &self.out, route, Epilogue::residual(x))?;
        let Normed { y: h, saved: norm2, downs: [down] } =
            lora::norm_down(cx, &x1, &self.norm2, [&self.fc1], route)?;
        let fc1 = (&self.fc1, down, Epilogue::gelu(self.act));
        let [(g, fc1, act)] = lora::forward_several(cx, &h, [fc1], route)?;
        let (y, mut fc2, _) = lora::forward_with(cx, &g, &self.fc2, route, Epilogue::residual(&x1))?;
        let fc2_input = fc2.forget_input();
        Ok((y, Saved { norm1, qkv: [sq, sk, sv], attention, out, norm2, fc1, act, fc2, fc2_input }))
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
        spans: &[Span],
        route: &Route,
        mut grads: Option<&mut Grads>,
    ) -> Result<Tensor> {
        let slope = BackwardEpilogue { gelu: s.act.as_ref().map(|u| (u, self.act)), sum: None };
        let du = {
            let fc2 = match &s.act {
                Some(u) if s.fc2_input => &s.fc2.with_input(u.again(cx, self.act)?),
                _ => &s.fc2,
            };
            lora::backward_with(cx, fc2, &dy, &self.fc2, route, slope, grads.as_deref_mut())?
        };
        let dh = lora::backward(cx, &s.fc1, &du, &self.fc1, route, grads.as_deref_mut())?;
        let dx1 = layernorm::backward_residual(cx, &s.norm2, &dh, dy, &self.norm2, grads.as_deref_mut())?;
        let d_o = lora::backward(cx, &s.out, &dx1, &self.out, route, grads.as_deref_mut())?;
        let (dq, dkv) = attention::backward(cx, &s.attention, &d_o, spans, &self.heads)?;
        let [sq, sk, sv] = &s.qkv;
        let mut dh = lora::backward(cx, sq, &dq, &self.q, route, grads.as_deref_mut())?;
        if let Kv::Split { k, v } = dkv {
            for (s, dy, p) in [(sk, &k, &self.k), (sv, &v, &self.v)] {
                dh = lora::backward_with(
                    cx,
                    s,
                    dy,
                    p,
                    route,
                    BackwardEpilogue::sum(&dh),
                    grads.as_deref_mut(),
                )?;
            }
        }
        layernorm::backward_residual(cx, &s.norm1, &dh, dx1, &self.norm1, grads)
    }
}
