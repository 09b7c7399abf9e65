//! The second half of a block: x + c_proj(gelu(c_fc(LN x))), with the tanh form of GELU.

use pheye_ops::gelu::{self, Gelu};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::{self, BackwardEpilogue, Epilogue, Linear};
use pheye_ops::{Cx, Result};
use pheye_tensor::{Grads, Init, Param, Scope, Tensor};

use crate::Config;

/// The parameters of the MLP with its LayerNorm.
#[derive(Debug)]
pub struct Mlp {
    norm: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
}

/// Values that the backward of the MLP needs.
#[derive(Debug)]
pub struct Saved {
    norm: layernorm::Saved,
    c_fc: linear::Saved,
    act: Option<gelu::Saved>,
    c_proj: linear::Saved,
}

impl Mlp {
    /// The half at the scope of its block.
    pub(crate) fn new(scope: &mut Scope, c: &Config) -> Mlp {
        let (d, inner) = (c.n_embd, c.inner());
        let norm = LayerNorm::new(&mut scope.at("ln_2"), d, c.layer_norm_epsilon);
        let mut mlp = scope.at("mlp");
        let c_fc = Linear::new(&mut mlp.at("c_fc"), d, inner, true, Init::Normal(crate::block::STD));
        let c_proj = Linear::new(&mut mlp.at("c_proj"), inner, d, true, crate::block::residual_init(c));
        Mlp { norm, c_fc, c_proj }
    }

    /// All parameters.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.norm.params_mut();
        all.extend(self.c_fc.params_mut());
        all.extend(self.c_proj.params_mut());
        all
    }

    /// y [rows, d] for x [rows, d].
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn forward(&self, cx: &Cx, x: &Tensor) -> Result<(Tensor, Saved)> {
        let (h, norm) = layernorm::forward(cx, x, &self.norm)?;
        let (g, c_fc, act) = linear::forward_with(cx, &h, &self.c_fc, Epilogue::gelu(Gelu::Tanh))?;
        let (y, c_proj, _) = linear::forward_with(cx, &g, &self.c_proj, Epilogue::residual(x))?;
        Ok((y, Saved { norm, c_fc, act, c_proj }))
    }

    /// dx for dy [rows, d]; the gradients of trained parameters are accumulated in `grads`.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn backward(&self, cx: &Cx, s: &Saved, dy: Tensor, mut grads: Option<&mut Grads>) -> Result<Tensor> {
        let slope = BackwardEpilogue { gelu: s.act.as_ref().map(|u| (u, Gelu::Tanh)), sum: None };
        let du = linear::backward_with(cx, &s.c_proj, &dy, &self.c_proj, slope, grads.as_deref_mut())?;
        let dh = linear::backward(cx, &s.c_fc, &du, &self.c_fc, grads.as_deref_mut())?;
        layernorm::backward_residual(cx, &s.norm, &dh, dy, &self.norm, grads)
    }
}
