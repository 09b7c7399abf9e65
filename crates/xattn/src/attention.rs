//! Cross-attention with its norm and its residual connection: x += to_out(attention(to_q(LN x), to_kv(media))).

use pheye_ops::attention::{self, Heads, Kv, Span};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::{self, Epilogue, Linear};
use pheye_ops::{Cx, Result, elementwise};
use pheye_tensor::{DType, Grads, Init, Param, Scope, Tensor};

/// The names of the modules of an [`Attention`], relative to its scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// The LayerNorm.
    pub norm: &'static str,
    /// The linear of the queries.
    pub to_q: &'static str,
    /// The linear of keys and values; the keys are the first half of its outputs.
    pub to_kv: &'static str,
    /// The linear of the output.
    pub to_out: &'static str,
}

impl Names {
    /// The names in Pheye's checkpoints, at the scope of a cross-attention block.
    pub const PHEYE: Names =
        Names { norm: "attn.norm", to_q: "attn.to_q", to_kv: "attn.to_kv", to_out: "attn.to_out" };

    /// The names in checkpoints of transformers' GPT-2 with cross-attention, at the scope of a decoder layer, `h.N`.
    /// These checkpoints store the weights of the three linears as [in, out], and an [`Attention`] takes them as [out,
    /// in]: a source that reads such a checkpoint has to transpose them.
    pub const GPT2: Names = Names {
        norm: "ln_cross_attn",
        to_q: "crossattention.q_attn",
        to_kv: "crossattention.c_attn",
        to_out: "crossattention.c_proj",
    };
}

/// Shapes, names and initial weights of an [`Attention`].
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionConfig {
    /// Width of x.
    pub text: usize,
    /// Width of the media.
    pub media: usize,
    /// Number of heads.
    pub heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Factor of the scores before the softmax.
    pub scale: f32,
    /// Whether the three linears have a bias.
    pub bias: bool,
    /// ε of the LayerNorm.
    pub layer_norm_eps: f32,
    /// Names of the modules.
    pub names: Names,
    /// Initial weights of to_q, to_kv and to_out.
    pub init: [Init; 3],
}

impl AttentionConfig {
    /// Cross-attention of a GPT-2 with hidden size `width`, `heads` heads, which divide it, and `layers` layers, one
    /// after the self-attention of each layer, as SmallCap (arXiv 2209.15323, section 3.1) trains it: media of the same
    /// width, as many heads as in self-attention, scale 1/√head_dim. Weights are drawn from N(0, 0.02²) as in GPT-2,
    /// with the deviation of to_out divided by √(2·layers).
    pub fn gpt2(width: usize, heads: usize, layers: usize) -> AttentionConfig {
        let (head_dim, std) = (width / heads, 0.02);
        AttentionConfig {
            text: width,
            media: width,
            heads,
            head_dim,
            scale: (head_dim as f32).sqrt().recip(),
            bias: true,
            layer_norm_eps: 1e-5,
            names: Names::GPT2,
            init: [Init::Normal(std), Init::Normal(std), Init::Normal(std / (2.0 * layers as f32).sqrt())],
        }
    }
}

/// The parameters of cross-attention.
#[derive(Debug)]
pub struct Attention {
    norm: LayerNorm,
    to_q: Linear,
    to_kv: Linear,
    to_out: Linear,
    heads: Heads,
}

/// Values that the backward of cross-attention needs.
#[derive(Debug)]
pub struct Saved {
    norm: layernorm::Saved,
    to_q: linear::Saved,
    attention: attention::Saved,
    to_out: linear::Saved,
}

impl Attention {
    /// Cross-attention with the parameters at `scope`.
    pub fn new(scope: &mut Scope, c: &AttentionConfig) -> Attention {
        let (inner, [q, kv, out]) = (c.heads * c.head_dim, c.init);
        let norm = LayerNorm::new(&mut scope.at(c.names.norm), c.text, c.layer_norm_eps);
        let to_q = Linear::new(&mut scope.at(c.names.to_q), c.text, inner, c.bias, q);
        let to_kv = Linear::new(&mut scope.at(c.names.to_kv), c.media, 2 * inner, c.bias, kv);
        let to_out = Linear::new(&mut scope.at(c.names.to_out), inner, c.text, c.bias, out);
        let heads = Heads { heads: c.heads, head_dim: c.head_dim, scale: c.scale, causal: false };
        Attention { norm, to_q, to_kv, to_out, heads }
    }

    /// All parameters.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.norm.params_mut();
        for p in [&mut self.to_q, &mut self.to_kv, &mut self.to_out] {
            all.extend(p.params_mut());
        }
        all
    }

    /// Keys and values [rows, 2·inner] for media [rows, width], where inner is the width of all heads. They are
    /// computed once per image and serve all text tokens.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn kv(&self, cx: &Cx, media: &Tensor) -> Result<(Tensor, linear::Saved)> {
        linear::forward(cx, media, &self.to_kv)
    }

    /// [`Attention::kv`] for inference. On the CPU the result is bf16 if the weights have less precision than f32,
    /// which halves the memory that every token reads.
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

    /// [`Attention::kv_backward`] without the gradient of media, for a frozen vision tower and connector.
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
        let (y, to_out, _) = linear::forward_with(cx, &o, &self.to_out, Epilogue::residual(x))?;
        Ok((y, Saved { norm, to_q, attention, to_out }))
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
        let d_o = linear::backward(cx, &s.to_out, &dy, &self.to_out, Some(&mut *grads))?;
        let (dq, dkv) = attention::backward(cx, &s.attention, &d_o, spans, &self.heads)?;
        let dkv = match dkv {
            Kv::Fused(dkv) => dkv,
            Kv::Split { .. } => unreachable!("keys and values are fused"),
        };
        let dh = linear::backward(cx, &s.to_q, &dq, &self.to_q, Some(&mut *grads))?;
        let dx = layernorm::backward_residual(cx, &s.norm, &dh, dy, &self.norm, Some(grads))?;
        Ok((dx, dkv))
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
}
