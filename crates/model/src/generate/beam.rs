//! Beam search for one prompt: the active beams, the finished answers, and the stopping rule.
//!
//! The rules are those of `beam_search` and `BeamSearchScorer` in transformers 4.37. This module only
//! computes with scores; it does not touch the network or its caches.

use std::collections::HashSet;
use std::ops::Range;

use super::{EarlyStopping, GenerationConfig};

/// An active beam.
#[derive(Debug, Clone)]
pub(super) struct Beam {
    /// Tokens of the answer so far.
    pub(super) ids: Vec<u32>,
    /// Sum of the log-probabilities after the logits processors.
    score: f32,
    /// The cache slot of its keys and values.
    pub(super) slot: usize,
}

/// A finished answer.
#[derive(Debug, Clone)]
struct Hypothesis {
    ids: Vec<u32>,
    score: f64,
}

/// The search of one prompt.
#[derive(Debug)]
pub(super) struct Search {
    /// Sorted by score; empty when the search has ended.
    pub(super) beams: Vec<Beam>,
    finished: Vec<Hypothesis>,
    /// The cache slots of this prompt.
    slots: Range<usize>,
    /// Maximum number of tokens.
    limit: usize,
}

/// A copy of the keys and values in slot `from` to slot `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) from: usize,
    pub(super) to: usize,
}

/// Initial score of all beams but the first, because at the start there is only one text to continue.
const STANDBY: f32 = -1e9;

impl Search {
    /// A search over the cache slots `slots`, one per beam, for answers of at most `limit` tokens.
    pub(super) fn new(slots: Range<usize>, limit: usize) -> Search {
        let start = |(i, slot)| Beam { ids: Vec::new(), score: if i == 0 { 0.0 } else { STANDBY }, slot };
        let beams = slots.clone().enumerate().map(start).collect();
        Search { beams, finished: Vec::new(), slots, limit }
    }

    /// Advances by one token, given the processed log-probabilities of the next token of each beam. `ends`
    /// tells whether an answer is complete without an end token. Returns the copies after which each beam's
    /// slot contains its keys and values; no slot is both a source and a target.
    pub(super) fn advance(
        &mut self,
        scores: &[Vec<f32>],
        how: &GenerationConfig,
        ends: &mut dyn FnMut(&[u32]) -> bool,
    ) -> Vec<Move> {
        let width = self.slots.len();
        let count = width * (1 + how.eos_token_id.len()).max(2);
        let candidates = best(&self.beams, scores, count);
        let length = self.beams.first().map_or(0, |b| b.ids.len()) + 1;
        let mut next: Vec<Beam> = Vec::with_capacity(width);
        for (rank, c) in candidates.iter().enumerate() {
            let parent = &self.beams[c.beam];
            let mut ids = parent.ids.clone();
            ids.push(c.token);
            if how.eos_token_id.contains(&c.token) || ends(&ids) {
                // As in transformers, an end token counts only among the first `width` candidates.
                if rank < width {
                    self.finish(ids, f64::from(c.score), how.length_penalty);
                }
            } else {
                next.push(Beam { ids, score: c.score, slot: parent.slot });
            }
            if next.len() == width {
                break;
            }
        }
        let top = candidates.first().map_or(f64::NEG_INFINITY, |c| f64::from(c.score));
        let done = self.is_done(top, length, how) || next.is_empty();
        if !done && length >= self.limit {
            for beam in &next {
                self.finish(beam.ids.clone(), f64::from(beam.score), how.length_penalty);
            }
        }
        if done || length >= self.limit {
            self.beams.clear();
            return Vec::new();
        }
        let moves = settle(&mut next, self.slots.clone());
        self.beams = next;
        moves
    }

    /// Adds a finished answer to the best ones, or drops it if it is worse than all of them. `sum` is its
    /// log-probability.
    fn finish(&mut self, ids: Vec<u32>, sum: f64, length_penalty: f64) {
        let score = sum / (ids.len() as f64).powf(length_penalty);
        if self.finished.len() < self.slots.len() || score > self.worst() {
            self.finished.push(Hypothesis { ids, score });
        }
        if self.finished.len() > self.slots.len() {
            let worst = self.worst();
            if let Some(at) = self.finished.iter().position(|h| h.score <= worst) {
                self.finished.remove(at);
            }
        }
    }

    fn worst(&self) -> f64 {
        self.finished.iter().map(|h| h.score).fold(f64::INFINITY, f64::min)
    }

    /// Whether no better answer is possible. `top` is the largest sum of any continuation, which has `length`
    /// tokens.
    fn is_done(&self, top: f64, length: usize, how: &GenerationConfig) -> bool {
        let reaches = |length: usize| self.worst() >= top / (length as f64).powf(how.length_penalty);
        self.finished.len() >= self.slots.len()
            && match how.early_stopping {
                EarlyStopping::True => true,
                EarlyStopping::False => reaches(length),
                // Log-probabilities are negative: with a positive penalty the longest answer gains most.
                EarlyStopping::Never if how.length_penalty > 0.0 => reaches(self.limit),
                EarlyStopping::Never => reaches(length),
            }
    }

    /// The `count` best answers, best first.
    pub(super) fn results(mut self, count: usize) -> Vec<Vec<u32>> {
        // Among equal scores the later answer comes first, as in transformers.
        self.finished.reverse();
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut ids: Vec<_> = self.finished.into_iter().map(|h| h.ids).collect();
        ids.resize_with(count, Vec::new);
        ids
    }
}

/// A beam continued by a token.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    beam: usize,
    token: u32,
    score: f32,
}

/// The `count` best continuations, best first. Ties go to the earlier beam, then the lower token; NaN is
/// skipped.
fn best(beams: &[Beam], scores: &[Vec<f32>], count: usize) -> Vec<Candidate> {
    let mut best: Vec<Candidate> = Vec::with_capacity(count + 1);
    for (beam, (b, row)) in beams.iter().zip(scores).enumerate() {
        for (token, s) in row.iter().enumerate() {
            let score = b.score + s;
            let worse_than_all = best.len() == count && best.last().is_none_or(|last| score <= last.score);
            if worse_than_all || score.is_nan() {
                continue;
            }
            best.truncate(count - 1);
            let at = best.partition_point(|c| c.score >= score);
            best.insert(at, Candidate { beam, token: token as u32, score });
        }
    }
    best
}

/// Assigns a separate slot to each of the next beams, which still refer to their parents' slots. A parent's
/// slot goes to its first child; other children get free slots, to which the parent's keys and values are
/// copied. This minimizes copies and needs no extra memory.
fn settle(next: &mut [Beam], slots: Range<usize>) -> Vec<Move> {
    let mut free: Vec<usize> = slots.filter(|s| next.iter().all(|b| b.slot != *s)).collect();
    let (mut taken, mut moves) = (HashSet::new(), Vec::new());
    for beam in next {
        if !taken.insert(beam.slot)
            && let Some(to) = free.pop()
        {
            moves.push(Move { from: beam.slot, to });
            beam.slot = to;
        }
    }
    moves
}

/// Replaces logits by the logarithm of their softmax.
pub(super) fn log_softmax(x: &mut [f32]) {
    let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = x.iter().map(|&v| f64::from((v - top).exp())).sum();
    let shift = top + sum.ln() as f32;
    x.iter_mut().for_each(|v| *v -= shift);
}

#[cfg(test)]
#[path = "beam_tests.rs"]
mod tests;
