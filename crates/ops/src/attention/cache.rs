//! The key-value cache of one attention layer, in which each sequence has as many rows as the longest may need.

use pheye_tensor::Tensor;

use crate::{Cx, Result, rows};

/// Keys and values of the past tokens, [sequences · capacity, width] each. [`super::Layout::cached`] defines which rows
/// belong to which sequence.
#[derive(Debug)]
pub struct Cache {
    /// The keys.
    pub k: Tensor,
    /// The values.
    pub v: Tensor,
}

impl Cache {
    /// An empty cache for keys and values of `width` columns.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] when a GPU is out of memory.
    pub fn new(cx: &Cx, sequences: usize, capacity: usize, width: usize) -> Result<Cache> {
        let shape = [sequences * capacity, width];
        Ok(Cache { k: cx.zeros(shape)?, v: cx.zeros(shape)? })
    }

    /// Writes row i of k and of v, the keys and values of new tokens, to row `at[i]`.
    ///
    /// # Errors
    /// [`crate::Error::Shapes`] when there is not one row for each token or the widths differ, [`crate::Error::Range`]
    /// when a row is outside the cache.
    pub fn write(&mut self, cx: &Cx, k: &Tensor, v: &Tensor, at: &[usize]) -> Result<()> {
        rows::scatter(cx, &mut self.k, k, at)?;
        rows::scatter(cx, &mut self.v, v, at)
    }

    /// Copies row `from[i]` to row `to[i]` for all i simultaneously.
    ///
    /// # Errors
    /// [`crate::Error::Range`] when a row is outside the cache.
    pub fn copy(&mut self, cx: &Cx, from: &[usize], to: &[usize]) -> Result<()> {
        for t in [&mut self.k, &mut self.v] {
            let moved = rows::gather(cx, t, from)?;
            rows::scatter(cx, t, &moved, to)?;
        }
        Ok(())
    }
}
