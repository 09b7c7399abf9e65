//! The log-probabilities of answers are those of the logits, and greedy answers are the most probable at each step.

mod common;

use common::{VOCAB, config, ids, lively, pixels};
use pheye_model::{Batch, GenerationConfig, Hooks};
use pheye_ops::Cx;

#[test]
fn answers_have_the_probabilities_of_their_logits() {
    let (config, cx) = (config(), Cx::cpu());
    let model = lively(&config);
    let pixels = pixels(&config, 2, 4);
    let media = model.encode(&cx, &pixels, 2).unwrap();
    let kvs = model.cross_kv(&cx, &media).unwrap();
    let prompts = vec![ids(2, 5, VOCAB), ids(3, 7, VOCAB), ids(4, 3, VOCAB)];
    let answers = vec![ids(5, 4, VOCAB), Vec::new(), ids(6, 1, VOCAB)];
    let image = [0, 1, 1];
    let found = model.log_probs(&cx, &kvs, &prompts, &answers, &image).unwrap();
    for (i, (prompt, answer)) in prompts.iter().zip(&answers).enumerate() {
        let ids: Vec<u32> = prompt.iter().chain(answer).copied().collect();
        let batch = Batch {
            pixels: pixels.clone(),
            images: 2,
            targets: vec![-100; ids.len()],
            lengths: vec![ids.len()],
            image: vec![image[i]],
            ids,
        };
        let logits = model.logits(&cx, &media, &batch).unwrap().to_vec_f32().unwrap();
        let expected: f64 = answer
            .iter()
            .enumerate()
            .map(|(t, id)| {
                let row = &logits[(prompt.len() + t - 1) * VOCAB..][..VOCAB];
                let most = row.iter().copied().fold(f32::MIN, f32::max);
                let sum: f64 = row.iter().map(|z| f64::from(z - most).exp()).sum();
                f64::from(row[*id as usize] - most) - sum.ln()
            })
            .sum();
        assert!((found[i] - expected).abs() < 1e-4 * expected.abs().max(1.0), "{} {expected}", found[i]);
    }
    assert_eq!(found[1], 0.0);

    // No token of one is more probable than that which greedy search chose.
    let mut how = GenerationConfig::greedy(1);
    how.eos_token_id = vec![0];
    let greedy = model.generate(&cx, &kvs, &prompts[..1], &[0], &how, Hooks::default()).unwrap();
    let best = model.log_probs(&cx, &kvs, &prompts[..1], &greedy, &[0]).unwrap()[0];
    for id in 0..VOCAB as u32 {
        assert!(model.log_probs(&cx, &kvs, &prompts[..1], &[vec![id]], &[0]).unwrap()[0] <= best + 1e-6);
    }
    let too_long = vec![vec![1; config.text.max_position_embeddings]];
    assert!(model.log_probs(&cx, &kvs, &prompts[..1], &too_long, &[0]).is_err());
}
