//! The key-value caches of slots: what every model with self-attention keeps for [`super::Slots`].

use pheye_ops::Cx;
use pheye_ops::attention::{Cache, Layout};

use super::CopyRows;
use crate::Result;

/// The caches of all layers, and the number of rows in each slot.
#[derive(Debug, Default)]
pub struct SlotCaches {
    /// One cache for each layer.
    pub caches: Vec<Cache>,
    /// Number of rows in each slot.
    pub past: Vec<usize>,
    /// Number of rows that a slot can hold.
    capacity: usize,
}

impl SlotCaches {
    /// Empty slots: `slots` of them with room for `capacity` rows each, in `layers` layers whose keys are `width` wide.
    ///
    /// # Errors
    /// When a GPU is out of memory.
    pub fn new(cx: &Cx, layers: usize, slots: usize, capacity: usize, width: usize) -> Result<SlotCaches> {
        let new = |_| Cache::new(cx, slots, capacity, width);
        let caches = (0..layers).map(new).collect::<Result<_, _>>()?;
        Ok(SlotCaches { caches, past: vec![0; slots], capacity })
    }

    /// The layout of `new[slot]` rows after those that each slot has.
    pub fn layout(&self, new: &[usize]) -> Layout {
        Layout::cached(&self.past, new, self.capacity)
    }

    /// Counts the rows that a step has added.
    pub fn advance(&mut self, new: &[usize]) {
        self.past.iter_mut().zip(new).for_each(|(past, new)| *past += new);
    }

    /// [`super::Slots::copy`].
    ///
    /// # Errors
    /// When an operation fails.
    pub fn copy(&mut self, cx: &Cx, copies: &[CopyRows]) -> Result<()> {
        let in_cache = |slot: usize, c: &CopyRows| {
            let base = slot * self.capacity;
            base + c.rows.start..base + c.rows.end
        };
        let from: Vec<usize> = copies.iter().flat_map(|c| in_cache(c.from, c)).collect();
        let to: Vec<usize> = copies.iter().flat_map(|c| in_cache(c.to, c)).collect();
        if !from.is_empty() {
            self.caches.iter_mut().try_for_each(|cache| cache.copy(cx, &from, &to))?;
        }
        copies.iter().for_each(|c| self.past[c.to] = c.rows.end);
        Ok(())
    }
}
