//! One layer of a Perceiver: y += to_out(attention(to_q(LN y), to_kv([LN x; LN y]))), then y += fc2(gelu(fc1(LN y))).

use pheye_ops::attention::{self, Heads, Kv, Span};
use pheye_ops::gelu::{self, Gelu};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::{self, BackwardEpilogue, Epilogue, Linear};
use pheye_ops::{Cx, Result, rows};
use pheye_tensor::{Grads, Init, Param, Scope, Tensor};

use crate::PerceiverConfig;
use crate::batch::{interleaved, spans};

/// The keys of a batch: for each image its tokens, then its latents.
#[derive(Debug)]
pub(crate) struct Keys {
    /// The row of each key in [tokens of all images; latents of all images].
    order: Vec<usize>,
    /// The inverse permutation.
    inverse: Vec<usize>,
    spans: Vec<Span>,
}

impl Keys {
    /// The keys of images with these numbers of tokens, and `latents` latents each.
    pub(crate) fn new(lengths: &[usize], latents: usize) -> Keys {
        let [order, inverse] = interleaved(lengths, latents);
        Keys { order, inverse, spans: spans(latents, lengths.iter().map(|length| length + latents)) }
    }
}

/// The parameters of a layer.
#[derive(Debug)]
pub(crate) struct Layer {
    norm_media: LayerNorm,
    norm_latents: LayerNorm,
    to_q: Linear,
    to_kv: Linear,
    to_out: Linear,
    ff_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: Heads,
}

/// Values that the backward of a layer needs.
#[derive(Debug)]
pub(crate) struct Saved {
    norm_media: layernorm::Saved,
    norm_latents: layernorm::Saved,
    to_q: linear::Saved,
    to_kv: linear::Saved,
    attention: attention::Saved,
    to_out: linear::Saved,
    ff_norm: layernorm::Saved,
    fc1: linear::Saved,
    act: Option<gelu::Saved>,
    fc2: linear::Saved,
}

/// A linear at `scope`, initialised as by torch.nn.Linear: weight and bias uniform in ±1/√k.
fn new_linear(mut scope: Scope, k: usize, n: usize, bias: bool) -> Linear {
    let init = Init::Uniform((k as f32).sqrt().recip());
    let weight = scope.param("weight", [n, k], init);
    Linear { weight, bias: bias.then(|| scope.param("bias", [n], init)) }
}

impl Layer {
    /// The layer at `scope`, with the names of flamingo-pytorch: module 0 is the attention, module 1 the MLP.
    pub(crate) fn new(scope: &mut Scope, c: &PerceiverConfig, d: usize) -> Layer {
        let (inner, hidden) = (c.heads * c.head_dim, c.ff_mult * d);
        let mut attn = scope.at(0);
        let norm_media = LayerNorm::new(&mut attn.at("norm_media"), d, 1e-5);
        let norm_latents = LayerNorm::new(&mut attn.at("norm_latents"), d, 1e-5);
        let to_q = new_linear(attn.at("to_q"), d, inner, c.bias);
        let to_kv = new_linear(attn.at("to_kv"), d, 2 * inner, c.bias);
        let to_out = new_linear(attn.at("to_out"), inner, d, c.bias);
        let mut ff = scope.at(1);
        let ff_norm = LayerNorm::new(&mut ff.at(0), d, 1e-5);
        let fc1 = new_linear(ff.at(1), d, hidden, c.bias);
        let fc2 = new_linear(ff.at(3), hidden, d, c.bias); // 2 is the GELU
        let scale = (c.head_dim as f32).sqrt().recip();
        let heads = Heads { heads: c.heads, head_dim: c.head_dim, scale, causal: false };
        Layer { norm_media, norm_latents, to_q, to_kv, to_out, ff_norm, fc1, fc2, heads }
    }

    pub(crate) fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.norm_media.params_mut();
        all.extend(self.norm_latents.params_mut());
        for p in [&mut self.to_q, &mut self.to_kv, &mut self.to_out] {
            all.extend(p.params_mut());
        }
        all.extend(self.ff_norm.params_mut());
        all.extend(self.fc1.params_mut());
        all.extend(self.fc2.params_mut());
        all
    }

    /// The latents [images·queries, d] behind the layer, for those before it, `y`, and the image tokens x [rows, d].
    pub(crate) fn forward(&self, cx: &Cx, y: &Tensor, x: &Tensor, keys: &Keys) -> Result<(Tensor, Saved)> {
        let (media, norm_media) = layernorm::forward(cx, x, &self.norm_media)?;
        let (h, norm_latents) = layernorm::forward(cx, y, &self.norm_latents)?;
        let both = rows::gather(cx, &rows::concat(cx, &[&media, &h])?, &keys.order)?;
        drop(media);
        let (q, to_q) = linear::forward(cx, &h, &self.to_q)?;
        let (kv, to_kv) = linear::forward(cx, &both, &self.to_kv)?;
        let (o, attention) = attention::forward(cx, &q, Kv::Fused(&kv), &keys.spans, &self.heads)?;
        let (y1, to_out, _) = linear::forward_with(cx, &o, &self.to_out, Epilogue::residual(y))?;
        let (h, ff_norm) = layernorm::forward(cx, &y1, &self.ff_norm)?;
        let (g, fc1, act) = linear::forward_with(cx, &h, &self.fc1, Epilogue::gelu(Gelu::Exact))?;
        let (y2, fc2, _) = linear::forward_with(cx, &g, &self.fc2, Epilogue::residual(&y1))?;
        let saved =
            Saved { norm_media, norm_latents, to_q, to_kv, attention, to_out, ff_norm, fc1, act, fc2 };
        Ok((y2, saved))
    }

    /// The gradients of the latents and of the image tokens for the gradient `dy` of the latents behind the layer. `dx`
    /// is the gradient of the tokens that comes from the layers behind this one.
    pub(crate) fn backward(
        &self,
        cx: &Cx,
        s: &Saved,
        dy: Tensor,
        dx: Option<Tensor>,
        keys: &Keys,
        grads: &mut Grads,
    ) -> Result<(Tensor, Tensor)> {
        let slope = BackwardEpilogue { gelu: s.act.as_ref().map(|u| (u, Gelu::Exact)), sum: None };
        let du = linear::backward_with(cx, &s.fc2, &dy, &self.fc2, slope, Some(&mut *grads))?;
        let dh = linear::backward(cx, &s.fc1, &du, &self.fc1, Some(&mut *grads))?;
        let dy = layernorm::backward_residual(cx, &s.ff_norm, &dh, dy, &self.ff_norm, Some(&mut *grads))?;
        let d_o = linear::backward(cx, &s.to_out, &dy, &self.to_out, Some(&mut *grads))?;
        let (dq, dkv) = attention::backward(cx, &s.attention, &d_o, &keys.spans, &self.heads)?;
        let dkv = match dkv {
            Kv::Fused(dkv) => dkv,
            Kv::Split { .. } => unreachable!("keys and values are fused"),
        };
        let dboth = linear::backward(cx, &s.to_kv, &dkv, &self.to_kv, Some(&mut *grads))?;
        let dboth = rows::gather(cx, &dboth, &keys.inverse)?;
        let (all, latents) = (dboth.shape().rows(), dy.shape().rows());
        let (dmedia, dh) = (dboth.rows(0..all - latents)?, dboth.rows(all - latents..all)?);
        let sum = BackwardEpilogue::sum(&dh);
        let dh = linear::backward_with(cx, &s.to_q, &dq, &self.to_q, sum, Some(&mut *grads))?;
        let dlatents = layernorm::backward_residual(
            cx,
            &s.norm_latents,
            &dh,
            dy,
            &self.norm_latents,
            Some(&mut *grads),
        )?;
        let dx = match dx {
            Some(dx) => {
                layernorm::backward_residual(cx, &s.norm_media, &dmedia, dx, &self.norm_media, Some(grads))
            }
            None => layernorm::backward(cx, &s.norm_media, &dmedia, &self.norm_media, Some(grads)),
        }?;
        Ok((dlatents, dx))
    }
}
