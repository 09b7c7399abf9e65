//! Generation: caches and batches change the cost, not the tokens.

mod common;

use common::{VOCAB, config, ids, lively, pixels, values};
use pheye_model::{Batch, Error, Generation, Pheye};
use pheye_ops::Cx;
use pheye_tensor::Tensor;

const LENGTHS: [usize; 4] = [3, 11, 1, 6];
/// Two questions about the first picture.
const ABOUT: [usize; 4] = [0, 0, 1, 2];
const NEW: usize = 14;

struct Asked {
    model: Pheye,
    cx: Cx,
    kvs: Vec<Option<Tensor>>,
    prompts: Vec<Vec<u32>>,
    media: Tensor,
}

fn asked() -> Asked {
    let (config, cx) = (config(), Cx::cpu());
    let model = lively(&config);
    let media = model.encode(&cx, &pixels(&config, 3, 4), 3).unwrap();
    let kvs = model.cross_kv(&cx, &media).unwrap();
    let prompts = LENGTHS.iter().enumerate().map(|(i, &len)| ids(i, len, VOCAB)).collect();
    Asked { model, cx, kvs, prompts, media }
}

impl Asked {
    fn generate(&self, which: std::ops::Range<usize>, end: Option<u32>) -> Vec<Vec<u32>> {
        let mut streamed = vec![Vec::new(); which.len()];
        let how = Generation { max_new_tokens: NEW, end };
        let (prompts, about) = (&self.prompts[which.clone()], &ABOUT[which]);
        let on_token = |i: usize, id| streamed[i].push(id);
        let answers = self.model.generate(&self.cx, &self.kvs, prompts, about, how, on_token).unwrap();
        assert_eq!(streamed, answers);
        answers
    }

    /// The most probable tokens by whole passes without a cache.
    fn recomputed(&self, i: usize) -> Vec<u32> {
        let mut text = self.prompts[i].clone();
        for _ in 0..NEW {
            let batch = Batch {
                pixels: pixels(self.model.config(), 3, 4),
                pictures: 3,
                ids: text.clone(),
                targets: vec![-100; text.len()],
                lengths: vec![text.len()],
                picture: vec![ABOUT[i]],
            };
            let logits = values(&self.model.logits(&self.cx, &self.media, &batch).unwrap());
            let last = logits.chunks(VOCAB).last().unwrap();
            let best = (0..VOCAB).rev().max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
            text.push(best as u32);
        }
        text.split_off(self.prompts[i].len())
    }
}

#[test]
fn a_batch_a_prompt_alone_and_whole_passes_agree() {
    let asked = asked();
    let together = asked.generate(0..4, None);
    for (i, answer) in together.iter().enumerate() {
        assert_eq!(answer, &asked.generate(i..i + 1, None)[0]);
        assert_eq!(answer, &asked.recomputed(i));
    }
    // The prompts are answered differently, or the rest would show little.
    assert!((1..4).all(|i| together[i] != together[0]), "{together:?}");
}

#[test]
fn answers_end_each_in_its_time() {
    let asked = asked();
    let open = asked.generate(0..4, None);
    let position = |end, answer: &[u32]| answer.iter().position(|&id| id == end);
    // An end that cuts some answers and leaves others.
    let cuts = |end: u32| open.iter().filter(|a| position(end, a).is_some()).count();
    let end = (0..VOCAB as u32).find(|&end| (1..4).contains(&cuts(end))).unwrap();
    let cut: Vec<_> = open.iter().map(|a| a[..position(end, a).map_or(NEW, |at| at + 1)].to_vec()).collect();
    assert_eq!(asked.generate(0..4, Some(end)), cut);
}

#[test]
fn answers_stop_where_the_context_does() {
    let mut asked = asked();
    asked.prompts[1] = ids(1, 31, VOCAB);
    asked.prompts[3] = ids(3, 25, VOCAB);
    // The last token of a context of 32 still has a successor.
    let lengths: Vec<usize> = asked.generate(0..4, None).iter().map(Vec::len).collect();
    assert_eq!(lengths, [NEW, 2, NEW, 8]);
    let how = Generation { max_new_tokens: usize::MAX, end: None };
    let one = &asked.prompts[2..3];
    let answer = asked.model.generate(&asked.cx, &asked.kvs, one, &[1], how, |_, _| ()).unwrap();
    assert_eq!(answer[0].len(), 32);
}

#[test]
fn impossible_questions_are_refused() {
    let Asked { model, cx, kvs, prompts, .. } = asked();
    let how = Generation { max_new_tokens: 2, end: None };
    let fault = |prompts: &[Vec<u32>], about: &[usize], kvs| {
        model.generate(&cx, kvs, prompts, about, how, |_, _| ()).unwrap_err()
    };
    let long = fault(&[ids(1, 32, VOCAB)], &[0], &kvs);
    assert!(matches!(long, Error::Context { prompt: 32, context: 32 }), "{long}");
    assert!(matches!(fault(&[vec![1], vec![]], &[0, 0], &kvs), Error::EmptyPrompt { index: 1 }));
    assert!(matches!(fault(&prompts, &[0, 1], &kvs), Error::Batch { found: 2, expected: 4, .. }));
    assert!(matches!(fault(&prompts, &[0, 1, 0, 1], &kvs), Error::Pictures { pictures: 3, .. }));
    assert!(matches!(fault(&prompts, &[0, 1, 2, 3], &kvs), Error::Pictures { pictures: 3, .. }));
    assert!(matches!(fault(&prompts, &ABOUT, &kvs[..2]), Error::Batch { found: 2, expected: 4, .. }));
    assert!(matches!(fault(&[vec![VOCAB as u32]], &[0], &kvs), Error::Op(_)));
    let none = model.generate(&cx, &kvs, &[], &[], how, |_, _| ()).unwrap();
    assert!(none.is_empty());
}
