//! One dense, ungated cross-attention block: cross-attention, then an MLP.

use pheye_ops::attention::Span;
use pheye_ops::{Cx, Result};
use pheye_tensor::{Grads, Init, Param, Scope, Tensor};

use crate::{Attention, AttentionConfig, Config, FeedForward, Names, attention, feed_forward};

/// The parameters of one block.
#[derive(Debug)]
pub struct Block {
    /// Cross-attention, which also computes the keys and values of the media.
    pub attn: Attention,
    /// The MLP.
    pub ff: FeedForward,
}

/// Values that the backward of a block needs.
#[derive(Debug)]
pub struct Saved {
    attn: attention::Saved,
    ff: feed_forward::Saved,
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
        let attn = AttentionConfig {
            text,
            media: vision,
            heads,
            head_dim: inner / heads,
            // Fixed at 1/√64, even where `reduce` makes heads narrower than 64.
            scale: 0.125,
            bias: true,
            layer_norm_eps: 1e-5,
            names: Names::PHEYE,
            init: [init(text), init(vision), out_init(inner)],
        };
        let attn = Attention::new(scope, &attn);
        let ff = FeedForward::new(&mut scope.at("ff"), text, hidden, [init(text), out_init(hidden)]);
        Block { attn, ff }
    }

    /// All parameters of the block.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.attn.params_mut();
        all.extend(self.ff.params_mut());
        all
    }

    /// y [rows, text] for x [rows, text] and the keys and values `kv` of [`Attention::kv`]. Each span pairs rows of x
    /// with the rows of `kv` that they attend to.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn forward(&self, cx: &Cx, x: &Tensor, kv: &Tensor, spans: &[Span]) -> Result<(Tensor, Saved)> {
        let (x, attn) = self.attn.forward(cx, x, kv, spans)?;
        let (y, ff) = self.ff.forward(cx, &x)?;
        Ok((y, Saved { attn, ff }))
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
        let dx = self.ff.backward(cx, &s.ff, dy, grads)?;
        self.attn.backward(cx, &s.attn, dx, spans, grads)
    }
}
