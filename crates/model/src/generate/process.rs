//! Logits processors, which depend on the tokens so far: penalties and bans, in the order of transformers
//! 4.37.
//!
//! As in transformers, scores are logits in greedy search and sampling, and log-probabilities in beam search.

use std::collections::HashSet;

use super::GenerationConfig;

impl GenerationConfig {
    /// Whether any processor has an effect.
    pub(super) fn has_processors(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.no_repeat_ngram_size > 0
            || (self.min_new_tokens > 0 && !self.eos_token_id.is_empty())
    }

    /// Applies all processors to the scores of the token after `ids`. The first `prompt` ids are the prompt.
    pub fn process(&self, scores: &mut [f32], ids: &[u32], prompt: usize) {
        if self.repetition_penalty != 1.0 {
            repetition_penalty(scores, ids, self.repetition_penalty);
        }
        if self.no_repeat_ngram_size > 0 {
            no_repeat_ngram(scores, ids, self.no_repeat_ngram_size);
        }
        if ids.len() - prompt < self.min_new_tokens {
            ban(scores, self.eos_token_id.iter().copied());
        }
    }
}

/// Divides the score of each distinct token in `ids` by `penalty`; a negative score is multiplied instead, so
/// that it decreases too (arXiv 1909.05858).
fn repetition_penalty(scores: &mut [f32], ids: &[u32], penalty: f32) {
    let seen: HashSet<u32> = ids.iter().copied().collect();
    for id in seen {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}

/// Bans the tokens that would repeat an n-gram of `ids`.
fn no_repeat_ngram(scores: &mut [f32], ids: &[u32], n: usize) {
    let Some(start) = (ids.len() + 1).checked_sub(n) else { return };
    let last = &ids[start..];
    ban(scores, ids.windows(n).filter(|w| w[..n - 1] == *last).map(|w| w[n - 1]));
}

fn ban(scores: &mut [f32], ids: impl Iterator<Item = u32>) {
    for id in ids {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = f32::NEG_INFINITY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANNED: f32 = f32::NEG_INFINITY;

    #[test]
    fn repetition_lowers_positive_and_negative_scores_once() {
        let mut scores = [2.0, -1.0, 0.0, 3.0, -4.0];
        repetition_penalty(&mut scores, &[0, 1, 0, 0, 2], 2.0);
        assert_eq!(scores, [1.0, -2.0, 0.0, 3.0, -4.0]);
        repetition_penalty(&mut scores, &[3, 4, 99], 0.5);
        assert_eq!(scores, [1.0, -2.0, 0.0, 6.0, -2.0]);
    }

    #[test]
    fn ngrams_come_once() {
        let banned = |ids: &[u32], n| {
            let mut scores = [0.0; 5];
            no_repeat_ngram(&mut scores, ids, n);
            (0..5u32).filter(|&i| scores[i as usize] == BANNED).collect::<Vec<_>>()
        };
        // 1 was followed by 2 and by 3.
        assert_eq!(banned(&[1, 2, 0, 1, 3, 1], 2), [2, 3]);
        // 3, 1 has not been followed by any token yet.
        assert_eq!(banned(&[1, 2, 0, 1, 3, 1], 3), [] as [u32; 0]);
        assert_eq!(banned(&[3, 1, 4, 3, 1], 3), [4]);
        // With length 1, every token of the text is banned.
        assert_eq!(banned(&[4, 0, 4], 1), [0, 4]);
        // Texts shorter than the n-gram.
        assert_eq!(banned(&[1, 1], 3), [] as [u32; 0]);
        assert_eq!(banned(&[1], 3), [] as [u32; 0]);
        assert_eq!(banned(&[], 1), [] as [u32; 0]);
        assert_eq!(banned(&[2, 2], 2), [2]);
    }

    #[test]
    fn an_answer_does_not_end_too_soon() {
        let how = GenerationConfig { min_new_tokens: 2, eos_token_id: vec![1, 3], ..Default::default() };
        let after = |ids: &[u32]| {
            let mut scores = [1.0, 2.0, 3.0, 4.0];
            how.process(&mut scores, ids, 3);
            scores
        };
        assert_eq!(after(&[0, 0, 0]), [1.0, BANNED, 3.0, BANNED]);
        assert_eq!(after(&[0, 0, 0, 2]), [1.0, BANNED, 3.0, BANNED]);
        assert_eq!(after(&[0, 0, 0, 2, 2]), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn all_together_in_their_order() {
        let how = GenerationConfig {
            repetition_penalty: 2.0,
            no_repeat_ngram_size: 2,
            min_new_tokens: 1,
            eos_token_id: vec![3],
            ..Default::default()
        };
        assert!(how.has_processors() && !GenerationConfig::default().has_processors());
        let mut scores = [4.0, 4.0, -1.0, 9.0];
        how.process(&mut scores, &[0, 2, 0], 3);
        assert_eq!(scores, [2.0, 4.0, BANNED, BANNED]);
    }
}
