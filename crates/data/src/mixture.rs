//! Several data sets in one endless, shuffled order.
//!
//! An epoch contains every item of a source with weight w w times on average. Sources are mixed differently
//! in each epoch, and each source is shuffled differently in each pass over it. With a weight of ½, a pass
//! takes two epochs.

use crate::random::{Permutation, Purpose};
use crate::{Content, Error, Item, Manifest, Result};

/// Data sets and the order of their samples.
#[derive(Debug)]
pub struct Mixture {
    sources: Vec<Source>,
    epoch_len: u64,
    seed: u64,
}

#[derive(Debug)]
struct Source {
    manifest: Manifest,
    /// Number of samples per epoch.
    share: u64,
    /// Number of its first item; items are numbered over all sources.
    first: u32,
}

/// The sample at one position of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Index of the source.
    pub source: usize,
    /// Index of the item in the source.
    pub item: usize,
    /// Number of complete passes over the source before this one.
    pub pass: u64,
    /// Number of the item; items are numbered over all sources.
    pub(crate) id: u32,
}

/// Maximum number of samples in an epoch.
const EPOCH_LIMIT: u64 = u32::MAX as u64;

impl Mixture {
    /// Mixes `manifests`. Each item is seen as often per epoch as its manifest's weight says; without
    /// weights, once. Items without anything to train on for `content` are removed.
    ///
    /// # Errors
    /// Returns [`Error::Weights`] if the weights do not match the manifests, [`Error::Epoch`] if an epoch has
    /// too many samples, and [`Error::Nothing`] if no item of a manifest has `content`.
    pub fn new(
        manifests: Vec<Manifest>,
        weights: Option<&[f64]>,
        content: Content,
        seed: u64,
    ) -> Result<Mixture> {
        let ones = vec![1.0; manifests.len()];
        let weights = weights.unwrap_or(&ones);
        let positive = weights.iter().all(|w| *w > 0.0 && w.is_finite());
        if weights.len() != manifests.len() || manifests.is_empty() || !positive {
            return Err(Error::Weights { manifests: manifests.len(), weights: weights.len() });
        }
        let samples: f64 = manifests.iter().zip(weights).map(|(m, w)| m.items.len() as f64 * w).sum();
        // Items are numbered in u32, and a permutation works on the next power of four.
        if samples > EPOCH_LIMIT as f64 {
            return Err(Error::Epoch { samples, limit: EPOCH_LIMIT });
        }
        let (mut sources, mut first) = (Vec::new(), 0);
        for (mut manifest, weight) in manifests.into_iter().zip(weights) {
            manifest.items.retain(|item| item.has(content));
            if manifest.items.is_empty() {
                return Err(Error::Nothing { path: manifest.path, content });
            }
            let len = manifest.items.len();
            let share = ((weight * len as f64).round() as u64).max(1);
            sources.push(Source { manifest, share, first });
            first += len as u32;
        }
        let epoch_len = sources.iter().map(|s| s.share).sum();
        Ok(Mixture { sources, epoch_len, seed })
    }

    /// Number of samples in an epoch.
    pub fn epoch_len(&self) -> u64 {
        self.epoch_len
    }

    /// The sample at `position`, which depends only on the seed and the position.
    pub fn draw(&self, position: u64) -> Draw {
        let (epoch, slot) = (position / self.epoch_len, position % self.epoch_len);
        let mix = Permutation::new(self.epoch_len as usize, self.seed, Purpose::Mix, 0, epoch);
        let mut k = mix.at(slot as usize) as u64;
        let mut source = 0;
        while k >= self.sources[source].share {
            k -= self.sources[source].share;
            source += 1;
        }
        let Source { manifest, share, first } = &self.sources[source];
        let len = manifest.items.len();
        let at = epoch * share + k;
        let (pass, i) = (at / len as u64, (at % len as u64) as usize);
        let item = Permutation::new(len, self.seed, Purpose::Shuffle, source, pass).at(i);
        Draw { source, item, pass, id: first + item as u32 }
    }

    /// The manifest of a draw.
    pub fn manifest(&self, draw: &Draw) -> &Manifest {
        &self.sources[draw.source].manifest
    }

    /// The item of a draw.
    pub fn item(&self, draw: &Draw) -> &Item {
        &self.manifest(draw).items[draw.item]
    }

    /// All items with their manifests, in the order of their numbers.
    pub(crate) fn items(&self) -> impl Iterator<Item = (&Manifest, &Item)> {
        self.sources.iter().flat_map(|s| s.manifest.items.iter().map(|item| (&s.manifest, item)))
    }

    /// The manifests.
    pub fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.sources.iter().map(|s| &s.manifest)
    }

    /// The seed of the order.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}
