//! Several data sets in one endless, shuffled order.
//!
//! An epoch sees every item of a source with weight w just w times (rounded). Sources are mixed anew in every epoch, and
//! each source is shuffled anew in every pass over it. With a weight of one half, two epochs make a pass.

use crate::random::{Permutation, Purpose};
use crate::{Content, Error, Item, Manifest, Result};

/// Data sets and their order.
#[derive(Debug)]
pub struct Mixture {
    sources: Vec<Source>,
    epoch_len: u64,
    seed: u64,
}

#[derive(Debug)]
struct Source {
    manifest: Manifest,
    /// Samples in an epoch.
    share: u64,
    /// Number of its first item, counted over all sources.
    first: u32,
}

/// What stands at one position of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Number of the source.
    pub source: usize,
    /// Number of the item in the source.
    pub item: usize,
    /// How often the whole source was seen before.
    pub pass: u64,
    /// Number of the item, counted over all sources.
    pub(crate) id: u32,
}

/// The most samples of an epoch.
const EPOCH_LIMIT: u64 = u32::MAX as u64;

impl Mixture {
    /// Mixes `manifests`, each seen as often per epoch as its weight says (once, without weights). Items that have
    /// nothing of `content` are left out.
    ///
    /// # Errors
    /// [`Error::Weights`], [`Error::Epoch`], or [`Error::Nothing`] when a source has nothing of `content`.
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
        // The numbers of items are u32, and a permutation needs room for the next power of four.
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

    /// Samples in an epoch.
    pub fn epoch_len(&self) -> u64 {
        self.epoch_len
    }

    /// What stands at `position`, a function of the seed and the position alone.
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

    /// The data set of a draw.
    pub fn manifest(&self, draw: &Draw) -> &Manifest {
        &self.sources[draw.source].manifest
    }

    /// The item of a draw.
    pub fn item(&self, draw: &Draw) -> &Item {
        &self.manifest(draw).items[draw.item]
    }

    /// All items with the data sets that they are of, in the order of their numbers.
    pub(crate) fn items(&self) -> impl Iterator<Item = (&Manifest, &Item)> {
        self.sources.iter().flat_map(|s| s.manifest.items.iter().map(|item| (&s.manifest, item)))
    }

    /// The data sets.
    pub fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.sources.iter().map(|s| &s.manifest)
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}
