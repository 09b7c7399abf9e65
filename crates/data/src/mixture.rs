//! Several data sets in one endless, shuffled order.
//!
//! An epoch contains every sample of a source with weight w w times on average. Sources are mixed differently
//! in each epoch, and each source is shuffled differently in each pass over it. With a weight of ½, a pass
//! takes two epochs. The parts of a source are drawn like sources of their own.

use std::ops::Range;

use crate::random::{Permutation, Purpose};
use crate::source::{Part, PartRules, Share};
use crate::summary::{PartSummary, Summary};
use crate::{Content, Error, Item, Result, Source, Turns};

/// Data sets and the order of their samples.
#[derive(Debug)]
pub struct Mixture {
    sources: Vec<Source>,
    /// The number of the first item of each source; items are numbered over all sources.
    firsts: Vec<u32>,
    pools: Vec<Pool>,
    content: Content,
    epoch_len: u64,
    seed: u64,
}

/// A part of a source.
#[derive(Debug)]
struct Pool {
    source: usize,
    items: Range<usize>,
    /// For each item the number of samples up to and including its own, unless each has one.
    ends: Option<Vec<u32>>,
    /// Number of samples per epoch.
    share: u64,
}

impl Pool {
    /// Samples of a pass.
    fn len(&self) -> usize {
        self.ends.as_ref().map_or(self.items.len(), |ends| ends.last().map_or(0, |end| *end as usize))
    }

    /// The item of a sample, which of its samples it is, and how many it has.
    fn item(&self, sample: usize) -> (usize, usize, usize) {
        let Some(ends) = &self.ends else { return (self.items.start + sample, 0, 1) };
        let i = ends.partition_point(|end| *end as usize <= sample);
        let begin = if i == 0 { 0 } else { ends[i - 1] as usize };
        (self.items.start + i, sample - begin, ends[i] as usize - begin)
    }
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
    /// Which of the item's samples in this pass it is, and how many there are; `None` if the sample is all
    /// that the item has.
    pub(crate) turn: Option<(u16, u16)>,
}

/// Maximum number of samples in an epoch.
const EPOCH_LIMIT: u64 = u32::MAX as u64;

impl Mixture {
    /// Mixes `sources`, or manifests. Each sample is seen as often per epoch as the weight of its source says;
    /// `weights` replaces those that the sources have. Items without anything to train on for `content` are
    /// removed.
    ///
    /// # Errors
    /// Returns [`Error::Weights`] if the weights do not match the sources, [`Error::Epoch`] if an epoch has
    /// too many samples, and [`Error::Nothing`] if no item of a source has `content`.
    pub fn new<S: Into<Source>>(
        sources: Vec<S>,
        weights: Option<&[f64]>,
        content: Content,
        seed: u64,
    ) -> Result<Mixture> {
        let given = weights.map_or(sources.len(), <[f64]>::len);
        if given != sources.len() || sources.is_empty() {
            return Err(Error::Weights { manifests: sources.len(), weights: given });
        }
        let mut sources: Vec<Source> = sources.into_iter().map(Into::into).collect();
        for (source, weight) in sources.iter_mut().zip(weights.into_iter().flatten()) {
            source.share = Share::Weight(*weight);
        }
        let positive =
            |source: &Source| !matches!(source.share, Share::Weight(w) if w <= 0.0 || !w.is_finite());
        if !sources.iter().all(positive) {
            return Err(Error::Weights { manifests: sources.len(), weights: given });
        }
        let (mut pools, mut firsts, mut first) = (Vec::new(), Vec::new(), 0u64);
        for (number, source) in sources.iter_mut().enumerate() {
            source.retain(content);
            if source.is_empty() {
                return Err(Error::Nothing { path: source.path().into(), content });
            }
            firsts.push(first as u32);
            first += source.len() as u64;
            pools.extend(of_source(source, number, content)?);
        }
        let epoch_len = pools.iter().map(|pool| pool.share as f64).sum::<f64>();
        within(epoch_len.max(first as f64))?;
        Ok(Mixture { sources, firsts, pools, content, epoch_len: epoch_len as u64, seed })
    }

    /// Number of samples in an epoch.
    pub fn epoch_len(&self) -> u64 {
        self.epoch_len
    }

    /// Number of items of all sources.
    pub fn len(&self) -> usize {
        self.sources.iter().map(Source::len).sum()
    }

    /// Whether there are no items; never so.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample at `position`, which depends only on the seed and the position.
    pub fn draw(&self, position: u64) -> Draw {
        let (epoch, slot) = (position / self.epoch_len, position % self.epoch_len);
        let mix = Permutation::new(self.epoch_len as usize, self.seed, Purpose::Mix, 0, epoch);
        let mut k = mix.at(slot as usize) as u64;
        let mut number = 0;
        while k >= self.pools[number].share {
            k -= self.pools[number].share;
            number += 1;
        }
        let pool = &self.pools[number];
        let len = pool.len();
        let at = epoch * pool.share + k;
        let (pass, i) = (at / len as u64, (at % len as u64) as usize);
        let sample = Permutation::new(len, self.seed, Purpose::Shuffle, number, pass).at(i);
        let (item, turn, of) = pool.item(sample);
        let source = pool.source;
        let turn = self.by_turns(source).then_some((turn as u16, of as u16));
        Draw { source, item, pass, id: self.firsts[source] + item as u32, turn }
    }

    /// Whether the samples of a source are turns.
    fn by_turns(&self, source: usize) -> bool {
        self.content == Content::Questions && !self.sources[source].is_whole()
    }

    /// The source of a draw.
    pub fn source(&self, draw: &Draw) -> &Source {
        &self.sources[draw.source]
    }

    /// The item of a draw, with all that it has.
    ///
    /// # Errors
    /// Returns the error of [`Source::item`].
    pub fn item(&self, draw: &Draw) -> Result<Item> {
        self.source(draw).item(draw.item)
    }

    /// The item of a draw with the drawn questions alone, each with its prompt; at most `questions` of an item
    /// whose questions are one sample.
    ///
    /// Each item has a random order of its questions; successive passes continue in it, cyclically.
    pub(crate) fn drawn_item(&self, draw: &Draw, questions: Option<usize>) -> Result<Item> {
        let source = self.source(draw);
        let part = source.part(draw.item);
        let mut item = source.item(draw.item)?;
        let n = item.qa.len();
        let (first, wanted, of) = match draw.turn {
            Some((turn, of)) => (turn.into(), 1, of.into()),
            None if part.captions => (0, 1, 1),
            None => (0, questions.unwrap_or(n), questions.unwrap_or(n)),
        };
        if n > 0 && (draw.turn.is_some() || wanted < n) {
            let order = Permutation::new(n, self.seed, Purpose::Questions, draw.id as usize, 0);
            let start = (draw.pass % n as u64) as usize * of + first;
            item.qa = (0..wanted).map(|i| item.qa[order.at((start + i) % n)].clone()).collect();
        }
        if let (Content::Captions, true, [(_, caption)]) = (self.content, part.captions, item.qa.as_slice()) {
            item.caption = Some(caption.clone());
        }
        self.prompt(&mut item, part, draw.id, draw.pass);
        Ok(item)
    }

    /// The source of the item `number` and its index in it. Items are numbered over all sources.
    pub(crate) fn numbered(&self, number: usize) -> (&Source, usize) {
        let source = self.firsts.partition_point(|first| *first as usize <= number) - 1;
        (&self.sources[source], number - self.firsts[source] as usize)
    }

    /// The item `number` with all its questions, each with its prompt of the first pass.
    pub(crate) fn whole_item(&self, number: usize) -> Result<Item> {
        let (source, i) = self.numbered(number);
        let mut item = source.item(i)?;
        self.prompt(&mut item, source.part(i), number as u32, 0);
        Ok(item)
    }

    fn prompt(&self, item: &mut Item, part: &Part, id: u32, pass: u64) {
        for (question, _) in &mut item.qa {
            *question = part.prompt.apply(std::mem::take(question), self.seed, id, pass);
        }
    }

    /// Which texts are trained on.
    pub(crate) fn content(&self) -> Content {
        self.content
    }

    /// The sources.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter()
    }

    /// What is used of each source, and what is not.
    pub fn summaries(&self) -> Vec<Summary> {
        let summary = |(number, source): (usize, &Source)| {
            let facts = source.facts();
            let pools = self.pools.iter().filter(|pool| pool.source == number);
            let parts = pools.map(|pool| {
                let turns = pool.items.clone().map(|i| u64::from(source.about(i).turns)).sum();
                let name = source.part(pool.items.start).name.to_owned();
                let items = pool.items.len() as u64;
                PartSummary { name, items, turns, pass: pool.len() as u64, samples: pool.share }
            });
            let (path, format) = (source.path().to_owned(), source.format());
            let parts: Vec<PartSummary> = parts.collect();
            let samples = parts.iter().map(|part| part.samples).sum();
            Summary { path, format, rows: facts.rows, samples, parts, left_out: facts.left_out }
        };
        self.sources.iter().enumerate().map(summary).collect()
    }

    /// The seed of the order.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// `samples`, if so many can be numbered. Samples are numbered in u32, and a permutation works on the next
/// power of four.
fn within(samples: f64) -> Result<()> {
    if samples <= EPOCH_LIMIT as f64 {
        return Ok(());
    }
    Err(Error::Epoch { samples, limit: EPOCH_LIMIT })
}

/// The pools of a source: its parts that have items.
fn of_source(source: &Source, number: usize, content: Content) -> Result<Vec<Pool>> {
    let mut pools: Vec<(Pool, f64)> = Vec::new();
    for (PartRules { part, weight }, items) in source.parts() {
        if !items.is_empty() {
            let ends = ends(source, part, items.clone(), content)?;
            let pool = Pool { source: number, items, ends, share: 0 };
            let weighted = pool.len() as f64 * weight;
            pools.push((pool, weighted));
        }
    }
    let all: f64 = pools.iter().map(|(_, weighted)| weighted).sum();
    let scale = match source.share {
        Share::Weight(weight) => weight,
        Share::Count(count) => count as f64 / all,
    };
    within(all * scale)?;
    let mut before = (0.0, 0);
    for (pool, weighted) in &mut pools {
        pool.share = match source.share {
            Share::Weight(weight) => ((weight * *weighted).round() as u64).max(1),
            Share::Count(_) => {
                // Rounded so that the parts add up to the count.
                before.0 += *weighted * scale;
                let end = before.0.round() as u64;
                end - std::mem::replace(&mut before.1, end)
            }
        };
    }
    Ok(pools.into_iter().map(|(pool, _)| pool).collect())
}

/// [`Pool::ends`] of a part.
fn ends(source: &Source, part: &Part, items: Range<usize>, content: Content) -> Result<Option<Vec<u32>>> {
    if source.is_whole() || content != Content::Questions {
        return Ok(None);
    }
    let mut end = 0u64;
    let counted = items.clone().map(|i| {
        let turns = source.about(i).turns;
        end += u64::from(match part.turns {
            Turns::Some(n) => n.min(turns),
            Turns::All => turns,
        });
        end.min(EPOCH_LIMIT) as u32
    });
    let ends: Vec<u32> = counted.collect();
    within(end as f64)?;
    Ok((end != items.len() as u64).then_some(ends))
}
