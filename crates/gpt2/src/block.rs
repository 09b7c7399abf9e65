//! One block: attention, then the MLP.

use pheye_ops::attention::{Cache, Layout};
use pheye_ops::{Cx, Result};
use pheye_tensor::{Grads, Init, Param, Scope, Tensor};

use crate::{Attention, Config, Mlp, attention, mlp};

/// Standard deviation of the initial weights.
pub(crate) const STD: f32 = 0.02;

/// The initialization of the linears that write to the residual stream, of which a model has two for each layer.
pub(crate) fn residual_init(c: &Config) -> Init {
    Init::Normal(STD / (2.0 * c.n_layer as f32).sqrt())
}

/// The two halves of a block. A caller with a layer between them calls one after the other.
///
/// ```
/// use pheye_gpt2::ops::{Cx, RandomInit, add};
/// use pheye_gpt2::tensor::{DType, Scope, Tensor};
/// use pheye_gpt2::{Config, Gpt2, Layout};
///
/// let config = Config { vocab_size: 100, n_positions: 16, n_embd: 32, n_layer: 1, n_head: 4, ..Config::default() };
/// let gpt2 = Gpt2::new(&mut Scope::new(&mut RandomInit::new(1), ""), &config)?;
/// let (cx, block, layout) = (Cx::cpu(), &gpt2.blocks[0], Layout::packed(&[3]));
/// let x = Tensor::zeros([3, 32], DType::F32);
///
/// let (y, attend) = block.attend.forward(&cx, &x, &layout, None)?;
/// let between = add::forward(&cx, y, &Tensor::from_f32([3, 32], &[0.5; 96])?)?;
/// let (y, mlp) = block.mlp.forward(&cx, &between)?;
///
/// let dbetween = block.mlp.backward(&cx, &mlp, y, None)?;
/// let dx = block.attend.backward(&cx, &attend, dbetween, &layout, None)?;
/// assert_eq!(dx.shape(), x.shape());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Block {
    /// Self-attention with its LayerNorm and residual connection.
    pub attend: Attention,
    /// The MLP with its LayerNorm and residual connection.
    pub mlp: Mlp,
}

/// Values that the backward of a block needs.
#[derive(Debug)]
pub struct Saved {
    attend: attention::Saved,
    mlp: mlp::Saved,
}

impl Block {
    pub(crate) fn new(scope: &mut Scope, c: &Config) -> Block {
        Block { attend: Attention::new(scope, c), mlp: Mlp::new(scope, c) }
    }

    /// All parameters of the block.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.attend.params_mut();
        all.extend(self.mlp.params_mut());
        all
    }

    /// y [rows, d] for packed x [rows, d]; the cache is as in [`Attention::forward`].
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
        let (y, attend) = self.attend.forward(cx, x, layout, cache)?;
        let (y, mlp) = self.mlp.forward(cx, &y)?;
        Ok((y, Saved { attend, mlp }))
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
        let dy = self.mlp.backward(cx, &s.mlp, dy, grads.as_deref_mut())?;
        self.attend.backward(cx, &s.attend, dy, layout, grads)
    }
}
