//! An MLP with its norm and its residual connection: x += fc2(gelu(fc1(LN x))).

use pheye_ops::gelu::{self, Gelu};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_ops::linear::{self, BackwardEpilogue, Epilogue, Linear};
use pheye_ops::{Cx, Result};
use pheye_tensor::{Grads, Init, Param, Scope, Tensor};

/// The parameters of the MLP.
#[derive(Debug)]
pub struct FeedForward {
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// Values that the backward of the MLP needs.
#[derive(Debug)]
pub struct Saved {
    norm: layernorm::Saved,
    fc1: linear::Saved,
    act: Option<gelu::Saved>,
    fc2: linear::Saved,
}

impl FeedForward {
    /// The MLP at `scope` for x of width d, with `hidden` units. `init` are the initial weights of fc1 and fc2.
    pub fn new(scope: &mut Scope, d: usize, hidden: usize, init: [Init; 2]) -> FeedForward {
        let norm = LayerNorm::new(&mut scope.at("norm"), d, 1e-5);
        let fc1 = Linear::new(&mut scope.at("fc1"), d, hidden, true, init[0]);
        let fc2 = Linear::new(&mut scope.at("fc2"), hidden, d, true, init[1]);
        FeedForward { norm, fc1, fc2 }
    }

    /// All parameters.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.norm.params_mut();
        all.extend(self.fc1.params_mut());
        all.extend(self.fc2.params_mut());
        all
    }

    /// y [rows, d] for x [rows, d].
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn forward(&self, cx: &Cx, x: &Tensor) -> Result<(Tensor, Saved)> {
        let (h, norm) = layernorm::forward(cx, x, &self.norm)?;
        let (g, fc1, act) = linear::forward_with(cx, &h, &self.fc1, Epilogue::gelu(Gelu::Exact))?;
        let (y, fc2, _) = linear::forward_with(cx, &g, &self.fc2, Epilogue::residual(x))?;
        Ok((y, Saved { norm, fc1, act, fc2 }))
    }

    /// dx for dy [rows, d]; the gradients of trained parameters are accumulated in `grads`.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn backward(&self, cx: &Cx, s: &Saved, dy: Tensor, grads: &mut Grads) -> Result<Tensor> {
        let slope = BackwardEpilogue { gelu: s.act.as_ref().map(|u| (u, Gelu::Exact)), sum: None };
        let du = linear::backward_with(cx, &s.fc2, &dy, &self.fc2, slope, Some(&mut *grads))?;
        let dh = linear::backward(cx, &s.fc1, &du, &self.fc1, Some(&mut *grads))?;
        layernorm::backward_residual(cx, &s.norm, &dh, dy, &self.norm, Some(grads))
    }
}
