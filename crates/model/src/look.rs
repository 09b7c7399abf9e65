//! Attention maps: the cross-attention of each token, summed over ranges of the image tokens inside the kernel.

use pheye_ops::Cx;
use pheye_tensor::Tensor;

use crate::error::count;
use crate::{Pheye, Result};

impl Pheye {
    /// For each of the tokens `ids`, the share of its cross-attention that falls on each view of image
    /// `image`: the global image first, then the tiles in column-major order. Shares are averaged over all
    /// heads of all cross-attention blocks and sum to 1. `kvs` is the result of [`Pheye::cross_kv`].
    ///
    /// Row i belongs to the decoding step that reads token i and chooses token i + 1. This costs one pass of
    /// the language model over `ids`, without a key/value cache.
    ///
    /// # Errors
    /// When `kvs` comes from another model, or memory runs out.
    pub fn attention_by_view(
        &self,
        cx: &Cx,
        kvs: &[Option<Tensor>],
        image: usize,
        ids: &[u32],
    ) -> Result<Vec<Vec<f32>>> {
        Ok(mean(&self.attention_by_layer(cx, kvs, image, ids)?))
    }

    /// [`Pheye::attention_by_view`] for each cross-attention block alone, in the order of the layers.
    ///
    /// # Errors
    /// When `kvs` comes from another model, or memory runs out.
    pub fn attention_by_layer(
        &self,
        cx: &Cx,
        kvs: &[Option<Tensor>],
        image: usize,
        ids: &[u32],
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        let tokens = self.config.vision.tokens();
        let bounds: Vec<usize> =
            (0..=1 + self.config.connector.local_tiles()).map(|view| view * tokens).collect();
        self.attention(cx, kvs, image, ids, &bounds)
    }

    /// For each of the tokens `ids`, the share of its cross-attention that falls on each image token of image `image`:
    /// the tokens of the global image first, then the tokens of the tiles; in each view the class token, then the patches
    /// row by row. Rows and means are as for [`Pheye::attention_by_view`].
    ///
    /// # Errors
    /// When `kvs` comes from another model, or memory runs out.
    pub fn attention_by_image_token(
        &self,
        cx: &Cx,
        kvs: &[Option<Tensor>],
        image: usize,
        ids: &[u32],
    ) -> Result<Vec<Vec<f32>>> {
        let bounds: Vec<usize> = (0..=self.config.media_tokens()).collect();
        Ok(mean(&self.attention(cx, kvs, image, ids, &bounds)?))
    }

    /// For each cross-attention block and each of the tokens `ids`, the share of the attention on each of the segments
    /// of the image tokens between `bounds`, averaged over heads.
    fn attention(
        &self,
        cx: &Cx,
        kvs: &[Option<Tensor>],
        image: usize,
        ids: &[u32],
        bounds: &[usize],
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        count("keys and values of layers", kvs.len(), self.cross.len())?;
        let segments = bounds.len() - 1;
        cx.install(|| {
            let mut layers = Vec::new();
            self.decode_packed(cx, kvs, ids, &[ids.len()], &[image], |cross, x, kv, spans| {
                let map = cross.attn.attention_sums(cx, x, kv, spans, bounds)?.to_vec_f32()?;
                let heads = map.len() / (ids.len() * segments).max(1);
                let mut shares = vec![vec![0.0; segments]; ids.len()];
                for (i, row) in map.chunks_exact(segments).enumerate() {
                    let to = &mut shares[i % ids.len()];
                    to.iter_mut().zip(row).for_each(|(to, share)| *to += share / heads as f32);
                }
                layers.push(shares);
                Ok(())
            })?;
            Ok(layers)
        })
    }
}

/// The mean over layers.
fn mean(layers: &[Vec<Vec<f32>>]) -> Vec<Vec<f32>> {
    let mut shares: Vec<Vec<f32>> =
        layers.first().into_iter().flatten().map(|row| vec![0.0; row.len()]).collect();
    for layer in layers {
        for (to, from) in shares.iter_mut().flatten().zip(layer.iter().flatten()) {
            *to += from / layers.len() as f32;
        }
    }
    shares
}
