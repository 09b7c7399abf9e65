//! Attention maps: the cross-attention of each token, summed over the keys of each view of its image.

use pheye_ops::attention::Span;
use pheye_ops::{Cx, embedding};
use pheye_phi::Layout;
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
        count("keys and values of layers", kvs.len(), self.cross.len())?;
        let tokens = self.config.vision.tokens();
        let views = 1 + self.config.connector.local_tiles();
        let bounds: Vec<usize> = (0..=views).map(|view| view * tokens).collect();
        let first = image * views * tokens;
        let spans = [Span { q: 0..ids.len(), k: first..first + views * tokens }];
        let layout = Layout::packed(&[ids.len()]);
        cx.install(|| {
            let mut x = embedding::forward(cx, ids, &self.phi.embed)?;
            let mut shares = vec![vec![0.0; views]; ids.len()];
            let mut maps = 0;
            for ((cross, kv), block) in self.cross.iter().zip(kvs).zip(&self.phi.blocks) {
                if let (Some(cross), Some(kv)) = (cross, kv) {
                    let map = cross.attention_sums(cx, &x, kv, &spans, &bounds)?.to_vec_f32()?;
                    let heads = map.len() / (ids.len() * views).max(1);
                    for (i, row) in map.chunks_exact(views).enumerate() {
                        let to = &mut shares[i % ids.len()];
                        to.iter_mut().zip(row).for_each(|(to, share)| *to += share);
                    }
                    maps += heads;
                    x = cross.forward(cx, &x, kv, &spans)?.0;
                }
                x = block.forward(cx, &x, &layout, &self.phi.rotary, None)?.0;
            }
            shares.iter_mut().flatten().for_each(|share| *share /= maps.max(1) as f32);
            Ok(shares)
        })
    }
}
