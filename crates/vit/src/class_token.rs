//! The class token of each tile behind `post_layernorm`: CLIP's pooled output, before its projection. Systems that show
//! a language model one vector per image, such as FROMAGe (arXiv 2301.13823, section 3.1), read this.

use pheye_ops::layernorm;
use pheye_ops::{Cx, Error, Result, rows};
use pheye_tensor::{Grads, Tensor};

use crate::Vit;

/// Values that the backward of the class token needs.
#[derive(Debug)]
pub struct Saved {
    norm: layernorm::Saved,
    tiles: usize,
}

impl Vit {
    /// `post_layernorm` of the class tokens [t, d], which are the first rows of the tiles in the last hidden state `x`
    /// [t, tokens, d] of [`Vit::forward`].
    ///
    /// # Errors
    /// [`Error::Range`] when the rows of x are not those of whole tiles, and an error when x has another width, or a GPU
    /// is out of memory or fails.
    pub fn class_token(&self, cx: &Cx, x: &Tensor) -> Result<(Tensor, Saved)> {
        let (rows, n) = (x.shape().rows(), self.config.tokens());
        if rows % n != 0 {
            let (value, allowed) = (rows.to_string(), format!("a multiple of the {n} tokens of a tile"));
            return Err(Error::Range { op: "class_token", what: "rows of x", value, allowed });
        }
        let first = rows::gather(cx, x, &class_rows(rows / n, n))?;
        let (y, norm) = layernorm::forward(cx, &first, &self.post_norm)?;
        Ok((y, Saved { norm, tiles: rows / n }))
    }

    /// The gradient of the last hidden state, [t, tokens, d] with zeros for the patches, given the gradient dy [t, d]
    /// of the class tokens. The gradients of `post_layernorm` are accumulated in `grads` if it is trained.
    ///
    /// # Errors
    /// When the shapes are inconsistent, or a GPU is out of memory or fails.
    pub fn class_token_backward(
        &self,
        cx: &Cx,
        saved: &Saved,
        dy: &Tensor,
        grads: &mut Grads,
    ) -> Result<Tensor> {
        let (t, n) = (saved.tiles, self.config.tokens());
        let dfirst = layernorm::backward(cx, &saved.norm, dy, &self.post_norm, Some(grads))?;
        let mut dx = cx.zeros([t, n, self.config.hidden_size])?;
        rows::scatter(cx, &mut dx, &dfirst, &class_rows(t, n))?;
        Ok(dx)
    }
}

/// The rows of the class tokens of `tiles` tiles with n tokens each.
fn class_rows(tiles: usize, n: usize) -> Vec<usize> {
    (0..tiles).map(|tile| tile * n).collect()
}
