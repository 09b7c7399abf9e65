//! Generation with a key-value cache gives what the logits of the whole text give.

mod common;

use common::{every_kind, pixels, random};
use pheye_baselines::Baseline;
use pheye_model::{Batch, GenerationConfig, Hooks};
use pheye_ops::Cx;
use pheye_tensor::Tensor;

const PROMPTS: [&[u32]; 4] = [&[3, 1, 4], &[1], &[5, 9, 2, 6, 5], &[3, 5]];
const IMAGES: [usize; 4] = [0, 0, 1, 2];

/// Log-softmax of the logits after `ids` about one image, without a cache.
fn log_probabilities(model: &Baseline, media: &Tensor, ids: &[u32]) -> Vec<f32> {
    let (pixels, targets) = (Tensor::zeros([0], pheye_tensor::DType::F32), vec![-100; ids.len()]);
    let (ids, lengths) = (ids.to_vec(), vec![ids.len()]);
    let batch = Batch { pixels, images: 1, ids, targets, lengths, image: vec![0] };
    let logits = model.logits(&Cx::cpu(), media, &batch).unwrap();
    let last = logits.f32().unwrap().chunks(model.config().text.vocab_size).last().unwrap().to_vec();
    let top = last.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = last.iter().map(|z| (z - top).exp()).sum();
    last.iter().map(|z| z - top - sum.ln()).collect()
}

#[test]
fn greedy_answers_are_those_of_whole_texts() {
    for (name, config) in every_kind() {
        let (model, cx) = (random(&config, 3), Cx::cpu());
        let media = model.encode(&cx, &pixels(&config, 3, 7), 3).unwrap();
        let images = model.images(&cx, media.clone()).unwrap();
        let prompts = PROMPTS.map(<[u32]>::to_vec);
        let how = GenerationConfig::greedy(6);
        let answers = model.generate(&cx, &images, &prompts, &IMAGES, &how, Hooks::default()).unwrap();
        let rows = config.media_tokens();
        for ((prompt, image), answer) in prompts.iter().zip(IMAGES).zip(&answers) {
            let own = media.rows(image * rows..(image + 1) * rows).unwrap();
            let mut ids = prompt.clone();
            for _ in 0..6 {
                let scores = log_probabilities(&model, &own, &ids);
                let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
                ids.push(best as u32);
            }
            assert_eq!(ids[prompt.len()..], answer[..], "{name}");
        }
        assert!(answers.iter().any(|answer| answer != &answers[0]), "{name}: the prompts matter");
    }
}

/// Beam search with as many beams as continuations finds the best text of two tokens.
#[test]
fn beams_find_the_best_text() {
    for (name, config) in every_kind() {
        let (model, cx) = (random(&config, 13), Cx::cpu());
        let media = model.encode(&cx, &pixels(&config, 1, 2), 1).unwrap();
        let images = model.images(&cx, media.clone()).unwrap();
        let prompt = vec![4, 2];
        let how = GenerationConfig { num_beams: 31, length_penalty: 0.0, ..GenerationConfig::greedy(2) };
        let found = model
            .generate(&cx, &images, std::slice::from_ref(&prompt), &[0], &how, Hooks::default())
            .unwrap();
        let first = log_probabilities(&model, &media, &prompt);
        let mut best = (f32::NEG_INFINITY, [0, 0]);
        for (a, p) in first.iter().enumerate() {
            let second = log_probabilities(&model, &media, &[&prompt[..], &[a as u32]].concat());
            for (b, q) in second.iter().enumerate() {
                if p + q > best.0 {
                    best = (p + q, [a as u32, b as u32]);
                }
            }
        }
        assert_eq!(found[0], best.1, "{name}");
    }
}

#[test]
fn scores_of_the_next_token_are_its_logits() {
    for (name, config) in every_kind() {
        let (model, cx) = (random(&config, 21), Cx::cpu());
        let media = model.encode(&cx, &pixels(&config, 1, 2), 1).unwrap();
        let images = model.images(&cx, media.clone()).unwrap();
        let how = GenerationConfig { do_sample: true, ..GenerationConfig::default() };
        let scores = model.next_scores(&cx, &images, &[vec![4, 2, 8]], &[0], &how).unwrap();
        let top = scores[0].iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = scores[0].iter().map(|z| (z - top).exp()).sum();
        let expected = log_probabilities(&model, &media, &[4, 2, 8]);
        let close = |(a, b): (&f32, &f32)| (a - top - sum.ln() - b).abs() < 1e-4;
        assert!(scores[0].iter().zip(&expected).all(close), "{name}");
    }
}

#[test]
fn a_context_counts_the_rows_of_the_image() {
    for (name, config) in every_kind() {
        let (model, cx) = (random(&config, 3), Cx::cpu());
        let images = model.images(&cx, model.encode(&cx, &pixels(&config, 1, 7), 1).unwrap()).unwrap();
        let answer = |prompt: usize, new: usize| {
            let how = GenerationConfig::greedy(new);
            model.generate(&cx, &images, &[vec![1; prompt]], &[0], &how, Hooks::default())
        };
        let context = config.context();
        // The last token of an answer is not read.
        assert_eq!(answer(context - 4, 100).unwrap()[0].len(), 5, "{name}");
        let error = answer(context, 1).unwrap_err().to_string();
        let expected = format!("a prompt of {context} tokens leaves no room in a context of {context}");
        assert_eq!(error, expected, "{name}");
    }
    let (_, config) = every_kind().swap_remove(0);
    let (model, cx) = (random(&config, 3), Cx::cpu());
    let images = model.images(&cx, model.encode(&cx, &pixels(&config, 1, 7), 1).unwrap()).unwrap();
    let how = GenerationConfig::greedy(1);
    let error = model.generate(&cx, &images, &[vec![1]], &[1], &how, Hooks::default()).unwrap_err();
    assert!(error.to_string().contains("must ascend and stay below 1"), "{error}");
}
