//! Either of the two resamplers.

use pheye_ops::{Cx, Error, Result};
use pheye_tensor::{Device, Grads, Param, Scope, Tensor};

use crate::{Config, Monkey, Perceiver, monkey, perceiver};

/// A resampler: from the tokens of an image to a fixed number of queries.
#[derive(Debug)]
pub enum Resampler {
    /// One attention, of Monkey.
    Monkey(Box<Monkey>),
    /// Several layers, of Flamingo.
    Perceiver(Box<Perceiver>),
}

/// Values that the backward of a resampler needs.
#[derive(Debug)]
pub enum Saved {
    /// Of a [`Monkey`].
    Monkey(Box<monkey::Saved>),
    /// Of a [`Perceiver`].
    Perceiver(Box<perceiver::Saved>),
}

impl Resampler {
    /// The resampler at `scope`, for images of tiles of `tokens` tokens, which are `width` wide.
    ///
    /// # Errors
    /// When the sizes are inconsistent.
    pub fn new(
        scope: &mut Scope,
        config: &Config,
        width: usize,
        tokens: usize,
    ) -> std::result::Result<Resampler, crate::Error> {
        Ok(match config {
            Config::Monkey(config) => Resampler::Monkey(Box::new(Monkey::new(scope, config, width, tokens)?)),
            Config::Perceiver(config) => {
                Resampler::Perceiver(Box::new(Perceiver::new(scope, config, width)?))
            }
        })
    }

    /// All parameters, in network order.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        match self {
            Resampler::Monkey(p) => p.params_mut(),
            Resampler::Perceiver(p) => p.params_mut(),
        }
    }

    /// Moves constants that are no parameters to `device`; otherwise each forward pass uploads them.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the device is out of memory.
    pub fn move_to(&mut self, device: &Device) -> Result<()> {
        match self {
            Resampler::Monkey(p) => p.move_to(device),
            Resampler::Perceiver(_) => Ok(()),
        }
    }

    /// y [images, queries, width] for the tokens x [rows, width] of all images, of which image i has `lengths[i]`.
    ///
    /// # Errors
    /// The errors of [`Monkey::forward`] or [`Perceiver::forward`].
    pub fn forward(&self, cx: &Cx, x: &Tensor, lengths: &[usize]) -> Result<(Tensor, Saved)> {
        Ok(match self {
            Resampler::Monkey(p) => {
                let (y, saved) = p.forward(cx, x, lengths)?;
                (y, Saved::Monkey(Box::new(saved)))
            }
            Resampler::Perceiver(p) => {
                let (y, saved) = p.forward(cx, x, lengths)?;
                (y, Saved::Perceiver(Box::new(saved)))
            }
        })
    }

    /// dx [rows, width] for dy [images, queries, width]; the gradients of trained parameters are accumulated in
    /// `grads`.
    ///
    /// # Errors
    /// [`Error::Range`] when the values were saved by the other resampler, and an error when the shapes are
    /// inconsistent, or a GPU is out of memory or fails.
    pub fn backward(&self, cx: &Cx, saved: &Saved, dy: &Tensor, grads: &mut Grads) -> Result<Tensor> {
        let other = |value: &str, allowed: &str| {
            let (value, allowed) = (value.to_owned(), allowed.to_owned());
            Err(Error::Range { op: "resampler", what: "the kind of the saved values", value, allowed })
        };
        match (self, saved) {
            (Resampler::Monkey(p), Saved::Monkey(saved)) => p.backward(cx, saved, dy, grads),
            (Resampler::Perceiver(p), Saved::Perceiver(saved)) => p.backward(cx, saved, dy, grads),
            (Resampler::Monkey(_), Saved::Perceiver(_)) => other("perceiver", "monkey"),
            (Resampler::Perceiver(_), Saved::Monkey(_)) => other("monkey", "perceiver"),
        }
    }
}
