//! Sampling of tokens: their frequencies, tokens that are never drawn, and invalid options.

use pheye_ops::Cx;
use pheye_ops::sampling::{self, Sampling};
use pheye_tensor::{DType, Tensor};

#[test]
fn rows_that_are_not_finite_give_their_largest() {
    let inf = f32::INFINITY;
    let x = [[1.0, inf, inf], [f32::NAN, 2.0, 1.0], [-inf, -inf, -inf]].concat();
    let draw = |cols: usize, x: &[f32], draws: &[u64]| {
        let x = Tensor::from_f32([x.len() / cols, cols], x).unwrap();
        sampling::forward(&Cx::cpu(), &x, &Sampling::default(), draws).unwrap()
    };
    assert_eq!(draw(3, &x, &[1, 2, 3]), [1, 0, 0]);
    // Tokens of probability 0 are never drawn.
    let x = [-inf, 0.0, -inf, 0.0].repeat(20);
    let draws: Vec<u64> = (0..20).collect();
    let ids = draw(4, &x, &draws);
    assert!(ids.iter().all(|i| i % 2 == 1) && ids.contains(&1) && ids.contains(&3));
}

/// Compares the frequencies of the drawn tokens with their probabilities.
#[test]
fn tokens_come_as_often_as_they_should() {
    let row = [0.0f32, 1.0, -1.0, 2.0, 1.5];
    let n = 20_000;
    let x = Tensor::from_f32([n, 5], &row.repeat(n)).unwrap();
    let draws: Vec<u64> = (0..n as u64).collect();
    let shares = |how: Sampling| {
        let mut counts = [0.0; 5];
        let ids = sampling::forward(&Cx::cpu(), &x, &how, &draws).unwrap();
        ids.iter().for_each(|&i| counts[i as usize] += 1.0 / n as f64);
        counts
    };
    let check = |how: Sampling, kept: &[usize]| {
        let weight = |i: usize| (f64::from(row[i]) / f64::from(how.temperature)).exp();
        let total: f64 = kept.iter().map(|&i| weight(i)).sum();
        for (i, share) in shares(how).into_iter().enumerate() {
            let p = if kept.contains(&i) { weight(i) / total } else { 0.0 };
            assert!(
                (share - p).abs() <= 5.0 * (p * (1.0 - p) / n as f64).sqrt(),
                "{how:?}, {i}: {share} of {p}"
            );
        }
    };
    check(Sampling::default(), &[0, 1, 2, 3, 4]);
    check(Sampling { temperature: 0.5, seed: 9, ..Sampling::default() }, &[0, 1, 2, 3, 4]);
    check(Sampling { top_k: 3, ..Sampling::default() }, &[1, 3, 4]);
    // The probabilities are 0.47, 0.28, 0.17, 0.06 and 0.02; the first two sum to 0.75.
    check(Sampling { top_p: 0.7, ..Sampling::default() }, &[3, 4]);
    check(Sampling { top_p: 0.8, ..Sampling::default() }, &[1, 3, 4]);
    check(Sampling { top_k: 2, top_p: 0.99, ..Sampling::default() }, &[3, 4]);
}

#[test]
fn options_out_of_range_are_refused() {
    let x = Tensor::zeros([1, 3], DType::F32);
    let says = |how: Sampling, draws: &[u64]| {
        sampling::forward(&Cx::cpu(), &x, &how, draws).unwrap_err().to_string()
    };
    let with = Sampling::default();
    let hot = says(Sampling { temperature: -1.0, ..with }, &[0]);
    assert_eq!(hot, "sampling: temperature is -1, expected a finite number from 0");
    assert_eq!(
        says(Sampling { top_p: 0.0, ..with }, &[0]),
        "sampling: top_p is 0, expected above 0, up to 1"
    );
    assert_eq!(says(with, &[]), "sampling: logits [1, 3] does not fit draws [0]");
}
