//! One dense, ungated cross-attention block:
//! x += to_out(attention(to_q(LN x), to_kv(media))); x += fc2(gelu(fc1(LN x))).

use pheye_ops::attention::{self, Heads, Kv, Span};
use pheye_ops::gelu::{self, Gelu};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::{self, BackwardEpilogue, Epilogue, Linear};
use pheye_ops::{Cx, Result, elementwise};
use pheye_tensor::{DType, Grads, Init, Param, Scope, Tensor};

use crate::Config;

/// The parameters of one block.
#[derive(Debug)]
pub struct Block {
    norm: LayerNorm,
    to_q: Linear,
    to_kv: Linear,
    to_out: Linear,
    ff_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: Heads,
}

/// Values that the backward of a block needs.
#[derive(Debug)]
pub struct Saved {
    norm: layernorm::Saved,
    to_q: linear::Saved,
    attention: attention::Saved,
    to_out: linear::Saved,
    ff_norm: layernorm::Saved,
    fc1: linear::Saved,
    act: Option<gelu::Saved>,
    fc2: linear::Saved,
}

impl Block {
    /// The block at `scope`, for a decoder with hidden size `text` and `layers` layers, and a vision tower with hidden
    /// size `vision`.
    ///
    /// The released code draws all weights from N(0, 0.01²), with the deviation divided by √(2·max(layers, 36)) for the
    /// two linears that write to the residual stream. This suits Phi, 2048 wide and with 24 layers. In a narrow model,
    /// the same deviation makes the outputs of the blocks, and their gradients, too small to learn from. Here, the
    /// deviation for an input of width n is 0.01·√(2048/n), which keeps the variance of the outputs, and a decoder with
    /// fewer than 24 layers counts 3·layers instead of 72. Both are the released numbers at the sizes of Phi.
    pub fn new(scope: &mut Scope, config: &Config, text: usize, vision: usize, layers: usize) -> Block {
        let (inner, heads) = (config.inner(text, vision), config.heads(text, vision));
        let hidden = 4 * text / config.reduce;
        let std = |width: usize| 0.01 * (2048.0 / width as f32).sqrt();
        let residual = (3 * layers).min(72).max(2 * layers) as f32;
        let init = |width| Init::Normal(std(width));
        let out_init = |width| Init::Normal(std(width) / residual.sqrt());
        let mut attn = scope.at("attn");
        let norm = LayerNorm::new(&mut attn.at("norm"), text, 1e-5);
        let to_q = Linear::new(&mut attn.at("to_q"), text, inner, true, init(text));
        let to_kv = Linear::new(&mut attn.at("to_kv"), vision, 2 * inner, true, init(vision));
        let to_out = Linear::new(&mut attn.at("to_out"), inner, text, true, out_init(inner));
        let mut ff = scope.at("ff");
        let ff_norm = LayerNorm::new(&mut ff.at("norm"), text, 1e-5);
        let fc1 = Linear::new(&mut ff.at("fc1"), text, hidden, true, init(text));
        let fc2 = Linear::new(&mut ff.at("fc2"), hidden, text, true, out_init(hidden));
        // The softmax scale is fixed at 1/√64, even where `reduce` makes heads narrower than 64.
        let heads = Heads { heads, head_dim: inner / heads, scale: 0.125, causal: false };
        Block { norm, to_q, to_kv, to_out, ff_norm, fc1, fc2, heads }
    }

    /// All parameters of the block.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.norm.params_mut();
        for p in [&mut self.to_q, &mut self.to_kv, &mut self.to_out] {
            all.extend(p.params_mut());
        }
        all.extend(self.ff_norm.params_mut());
        all.extend(self.fc1.params_mut());
        all.extend(self.fc2.params_mut());
        all
    }

    /// Keys and values [rows, 2·inner] for media [rows, vision]. They are computed once per image and serve all text
    /// tokens.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn kv(&self, cx: &Cx, media: &Tensor) -> Result<(Tensor, linear::Saved)> {
        linear::forward(cx, media, &self.to_kv)
    }

    /// [`Block::kv`] for inference. On the CPU the result is bf16 if the weights have less precision than f32, which
    /// halves the memory that every token reads.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn kv_to_keep(&self, cx: &Cx, media: &Tensor) -> Result<Tensor> {
        let (kv, _) = self.kv(cx, media)?;
        match self.to_kv.weight.value.dtype() {
            DType::Bf16 | DType::Int8 => elementwise::cast(cx, &kv, DType::Bf16),
            DType::F32 => Ok(kv),
        }
    }

    /// The gradient of media, given the gradient of the keys and values.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn kv_backward(
        &self,
        cx: &Cx,
        saved: &linear::Saved,
        dkv: &Tensor,
        grads: &mut Grads,
    ) -> Result<Tensor> {
        linear::backward(cx, saved, dkv, &self.to_kv, Some(grads))
    }

    /// [`Block::kv_backward`] without the gradient of media, for a frozen vision tower and connector.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn kv_backward_params(
        &self,
        cx: &Cx,
        saved: &linear::Saved,
        dkv: &Tensor,
        grads: &mut Grads,
    ) -> Result<()> {
        linear::backward_params(cx, saved, dkv, &self.to_kv, Some(grads))
    }

    /// y [rows, text] for x [rows, text]. Each span pairs rows of x with the rows of `kv` that they attend to.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn forward(&self, cx: &Cx, x: &Tensor, kv: &Tensor, spans: &[Span]) -> Result<(Tensor, Saved)> {
        let (h, norm) = layernorm::forward(cx, x, &self.norm)?;
        let (q, to_q) = linear::forward(cx, &h, &self.to_q)?;
        let (o, attention) = attention::forward(cx, &q, Kv::Fused(kv), spans, &self.heads)?;
        let (x1, to_out, _) = linear::forward_with(cx, &o, &self.to_out, Epilogue::residual(x))?;
        let (h, ff_norm) = layernorm::forward(cx, &x1, &self.ff_norm)?;
        let (g, fc1, act) = linear::forward_with(cx, &h, &self.fc1, Epilogue::gelu(Gelu::Exact))?;
        let (y, fc2, _) = linear::forward_with(cx, &g, &self.fc2, Epilogue::residual(&x1))?;
        Ok((y, Saved { norm, to_q, attention, to_out, ff_norm, fc1, act, fc2 }))
    }

    /// For each head and each row of x, the sum of the attention weights over the keys of each segment: [heads, rows,
    /// segments − 1] in f32. `segments` are the boundaries, relative to the first key of a span.
    ///
    /// # Errors
    /// When the shapes are inconsistent, the boundaries are not in ascending order, or a GPU is out of memory or fails.
    pub fn attention_sums(
        &self,
        cx: &Cx,
        x: &Tensor,
        kv: &Tensor,
        spans: &[Span],
        segments: &[usize],
    ) -> Result<Tensor> {
        let (h, _) = layernorm::forward(cx, x, &self.norm)?;
        let (q, _) = linear::forward(cx, &h, &self.to_q)?;
        attention::segment_sums(cx, &q, Kv::Fused(kv), spans, &self.heads, segments)
    }

    /// dx and dkv for dy [rows, text]; the gradients of trained parameters are accumulated in `grads`.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn backward(
        &self,
        cx: &Cx,
        s: &Saved,
        dy: Tensor,
        spans: &[Span],
        grads: &mut Grads,
    ) -> Result<(Tensor, Tensor)> {
        let slope = BackwardEpilogue { gelu: s.act.as_ref().map(|u| (u, Gelu::Exact)), sum: None };
        let du = linear::backward_with(cx, &s.fc2, &dy, &self.fc2, slope, Some(&mut *grads))?;
        let dh = linear::backward(cx, &s.fc1, &du, &self.fc1, Some(&mut *grads))?;
        let dx1 = layernorm::backward_residual(cx, &s.ff_norm, &dh, dy, &self.ff_norm, Some(&mut *grads))?;
        let d_o = linear::backward(cx, &s.to_out, &dx1, &self.to_out, Some(&mut *grads))?;
        let (dq, dkv) = attention::backward(cx, &s.attention, &d_o, spans, &self.heads)?;
        let dkv = match dkv {
            Kv::Fused(dkv) => dkv,
            Kv::Split { .. } => unreachable!("keys and values are fused"),
        };
        let dh = linear::backward(cx, &s.to_q, &dq, &self.to_q, Some(&mut *grads))?;
        let dx = layernorm::backward_residual(cx, &s.norm, &dh, dx1, &self.norm, Some(grads))?;
        Ok((dx, dkv))
    }
}
