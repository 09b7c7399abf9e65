//! Sampling: logits warpers in the order of transformers (temperature, top-k, top-p, min-p), and the draw of
//! a token.

use pheye_ops::sampling::{self, Sampling};
use pheye_ops::{Cx, topk};
use pheye_tensor::Tensor;

use super::GenerationConfig;
use crate::Result;

impl GenerationConfig {
    /// Applies all warpers to the scores of one token. Excluded tokens get −∞; sampling draws from the
    /// softmax of the rest.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn warp(&self, scores: &mut [f32]) -> Result<()> {
        let top = largest(scores);
        if self.temperature != 1.0 && top.is_finite() {
            // The largest score becomes 0, so that a very small temperature cannot overflow and tends to the
            // greedy choice.
            scores.iter_mut().for_each(|s| *s = (*s - top) / self.temperature);
        }
        if self.top_k > 0 && self.top_k < scores.len() {
            top_k(scores, self.top_k)?;
        }
        if self.top_p < 1.0 {
            top_p(scores, self.top_p);
        }
        if self.min_p > 0.0 {
            min_p(scores, self.min_p);
        }
        Ok(())
    }
}

/// Keeps scores not below the k-th largest.
fn top_k(scores: &mut [f32], k: usize) -> Result<()> {
    let row = Tensor::from_f32([1, scores.len()], scores)?;
    if let Some(&bound) = topk::forward(&Cx::cpu(), &row, k)?.values.last() {
        cut(scores, |s| s < bound);
    }
    Ok(())
}

/// Keeps the smallest set of most probable tokens with total probability `share`, at least one (arXiv
/// 1904.09751).
fn top_p(scores: &mut [f32], share: f32) {
    let top = largest(scores);
    // Among equal scores, the first counts as more probable.
    let mut order: Vec<usize> = (0..scores.len()).filter(|&i| scores[i] > f32::NEG_INFINITY).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let weight = |i: &usize| f64::from(scores[*i] - top).exp();
    let need = order.iter().map(weight).sum::<f64>() * f64::from(share);
    let mut sum = 0.0;
    let enough = order.iter().position(|i| {
        sum += weight(i);
        sum >= need
    });
    for &i in enough.and_then(|last| order.get(last + 1..)).unwrap_or_default() {
        scores[i] = f32::NEG_INFINITY;
    }
}

/// Keeps tokens with p ≥ `share`·max p, that is, with a score of at least the largest plus ln `share` (arXiv
/// 2407.01082).
fn min_p(scores: &mut [f32], share: f32) {
    let bound = largest(scores) + share.ln();
    cut(scores, |s| s < bound);
}

fn largest(scores: &[f32]) -> f32 {
    scores.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

fn cut(scores: &mut [f32], whether: impl Fn(f32) -> bool) {
    scores.iter_mut().filter(|s| whether(**s)).for_each(|s| *s = f32::NEG_INFINITY);
}

/// Draws a token for each row of warped `scores`, `[rows, vocab]`, with the random number `draws[row]` of
/// `seed`.
pub(super) fn draw(scores: &Tensor, draws: &[u64], seed: u64) -> Result<Vec<u32>> {
    Ok(sampling::forward(&Cx::cpu(), scores, &Sampling { seed, ..Sampling::default() }, draws)?)
}

/// The RNG offset for token `at` of the answer with index `copy` to its prompt.
pub(super) fn number(copy: usize, at: usize) -> u64 {
    (copy as u64) << 32 | at as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: f32 = f32::NEG_INFINITY;

    fn warped(how: GenerationConfig, probabilities: &[f32]) -> Vec<f32> {
        let mut scores: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        GenerationConfig { do_sample: true, ..how }.warp(&mut scores).unwrap();
        let total: f32 = scores.iter().map(|s| s.exp()).sum();
        scores.iter().map(|s| s.exp() / total).collect()
    }

    #[track_caller]
    fn near(a: &[f32], b: &[f32]) {
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} {b:?}");
    }

    const P: [f32; 4] = [0.4, 0.1, 0.3, 0.2];

    #[test]
    fn each_by_hand() {
        let plain = GenerationConfig::default;
        near(&warped(plain(), &P), &P);
        // p² divided by 0.16 + 0.01 + 0.09 + 0.04.
        let half = GenerationConfig { temperature: 0.5, ..plain() };
        near(&warped(half, &P), &[0.16 / 0.3, 0.01 / 0.3, 0.09 / 0.3, 0.04 / 0.3]);
        near(&warped(GenerationConfig { top_k: 2, ..plain() }, &P), &[4.0 / 7.0, 0.0, 3.0 / 7.0, 0.0]);
        near(&warped(GenerationConfig { top_k: 9, ..plain() }, &P), &P);
        // 0.4 + 0.3 reach 0.6; 0.4 alone reaches 0.3.
        near(&warped(GenerationConfig { top_p: 0.6, ..plain() }, &P), &[4.0 / 7.0, 0.0, 3.0 / 7.0, 0.0]);
        near(&warped(GenerationConfig { top_p: 0.3, ..plain() }, &P), &[1.0, 0.0, 0.0, 0.0]);
        near(&warped(GenerationConfig { top_p: 0.0, ..plain() }, &P), &[1.0, 0.0, 0.0, 0.0]);
        // Tokens with a probability of at least 0.45·0.4 are kept.
        let min_p = GenerationConfig { min_p: 0.45, ..plain() };
        near(&warped(min_p, &P), &[4.0 / 9.0, 0.0, 3.0 / 9.0, 2.0 / 9.0]);
        near(&warped(GenerationConfig { min_p: 1.0, ..plain() }, &P), &[1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_temperature_near_zero_takes_the_largest() {
        for temperature in [1e-3, 6e-39, 1e-40, f32::from_bits(1)] {
            for how in
                [GenerationConfig::default(), GenerationConfig { top_k: 0, top_p: 0.9, ..Default::default() }]
            {
                near(&warped(GenerationConfig { temperature, ..how }, &P), &[1.0, 0.0, 0.0, 0.0]);
            }
            let how = GenerationConfig { temperature, top_k: 0, ..Default::default() };
            // Equal scores stay equal, and banned tokens stay banned.
            let mut scores = [-3.0, OUT, -3.0, -4.0];
            how.warp(&mut scores).unwrap();
            assert!(
                scores[0] == scores[2] && scores[1] == OUT && (scores[3] - scores[0]) < -900.0,
                "{scores:?}"
            );
            let mut none = [OUT; 3];
            how.warp(&mut none).unwrap();
            assert_eq!(none, [OUT; 3]);
        }
    }

    #[test]
    fn one_after_another() {
        // After top-k, the probabilities 4/9 and 3/9 reach 0.75 together; without top-k, 0.4 + 0.3 would not.
        let how = GenerationConfig { top_k: 3, top_p: 0.75, ..Default::default() };
        near(&warped(how, &P), &[4.0 / 7.0, 0.0, 3.0 / 7.0, 0.0]);
        // The temperature is applied first: at ½, the second token has 0.09/0.16 of the probability of the
        // first; at 1 it has 0.75.
        let how = GenerationConfig { temperature: 0.5, min_p: 0.6, ..Default::default() };
        near(&warped(how, &P), &[1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn equal_scores_and_banned_ones() {
        let mut scores = [1.0, 1.0, OUT, 1.0];
        top_p(&mut scores, 0.5);
        assert_eq!(scores, [1.0, 1.0, OUT, OUT]);
        let mut scores = [1.0, 2.0, 1.0, 0.0];
        top_k(&mut scores, 2).unwrap();
        assert_eq!(scores, [1.0, 2.0, 1.0, OUT], "as many as equal the second");
        let mut none = [OUT; 3];
        GenerationConfig { top_k: 2, top_p: 0.5, min_p: 0.1, ..Default::default() }.warp(&mut none).unwrap();
        assert_eq!(none, [OUT; 3]);
    }

    #[test]
    fn draws_repeat_and_follow_the_probabilities() {
        let rows = 4000;
        let row: Vec<f32> = P.iter().map(|p| p.ln()).chain([OUT]).collect();
        let scores = Tensor::from_f32([rows, 5], &row.repeat(rows)).unwrap();
        let draws: Vec<u64> = (0..rows).map(|i| number(i % 3, i)).collect();
        let ids = draw(&scores, &draws, 7).unwrap();
        assert_eq!(ids, draw(&scores, &draws, 7).unwrap());
        assert_ne!(ids, draw(&scores, &draws, 8).unwrap());
        for (id, p) in P.into_iter().chain([0.0]).enumerate() {
            let share = ids.iter().filter(|&&i| i as usize == id).count() as f32 / rows as f32;
            // Four standard deviations.
            assert!((share - p).abs() <= 4.0 * (p * (1.0 - p) / rows as f32).sqrt(), "{id}: {share} for {p}");
        }
    }
}
