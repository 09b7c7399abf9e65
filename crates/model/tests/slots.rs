//! Generation with a model of this file's own: whatever implements `Slots` gets the answers that its probabilities say,
//! computed here by brute force over texts, without slots.

use std::collections::{HashMap, HashSet};

use pheye_model::generate::{self, CopyRows, Slots};
use pheye_model::{EarlyStopping, Error, GenerationConfig, Hooks, Result};
use pheye_ops::Cx;
use pheye_tensor::Tensor;
use pheye_testkit::normal;

const VOCAB: usize = 5;
const END: u32 = 4;
/// The image of each prompt.
const ABOUT: [usize; 3] = [0, 1, 1];
const CONTEXT: usize = 7;

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1], vec![0, 3, 2], vec![2, 2]]
}

/// A row that a slot has read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Row {
    Image(usize),
    Token(u32),
}

/// A second-order Markov chain over `VOCAB` tokens: a table of logits for each image and each length of the text, without
/// which many answers would be equally probable. The token before the last one is known only from the slot, so that rows
/// in a wrong slot give other answers.
struct Chain {
    /// Logits `[image][length − 1][token before the last][last token][next token]`.
    table: Vec<f32>,
    /// Rows that the image takes in a slot before the text. If there are none, the image is known from the prompt's
    /// number, as by cross-attention.
    prefix: usize,
    bytes: u128,
    slots: Vec<Vec<Row>>,
    copies: usize,
    tokens: usize,
}

impl Chain {
    fn new(prefix: usize) -> Chain {
        let table = normal(1, 2 * CONTEXT * VOCAB.pow(3)).iter().map(|x| 1.5 * x).collect();
        Chain { table, prefix, bytes: 1, slots: Vec::new(), copies: 0, tokens: 0 }
    }

    /// Logits of the token after `text`.
    fn logits(&self, image: usize, text: &[u32]) -> &[f32] {
        let last = text[text.len() - 1] as usize;
        let before = text.len().checked_sub(2).map_or(last, |i| text[i] as usize);
        let length = image * CONTEXT + text.len() - 1;
        let at = ((length * VOCAB + before) * VOCAB + last) * VOCAB;
        &self.table[at..at + VOCAB]
    }
}

impl Slots for Chain {
    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn context(&self) -> usize {
        CONTEXT
    }

    fn slot_bytes(&self, tokens: usize) -> u128 {
        self.bytes * (self.prefix + tokens) as u128
    }

    fn allocate(&mut self, prompts: usize, copies: usize, tokens: usize) -> Result<()> {
        if prompts != ABOUT.len() {
            return Err(Error::Batch { what: "images", found: ABOUT.len(), expected: prompts });
        }
        (self.copies, self.tokens) = (copies, tokens);
        self.slots = vec![Vec::new(); prompts * copies];
        Ok(())
    }

    fn step(&mut self, feed: &[Vec<u32>]) -> Result<Tensor> {
        assert_eq!(feed.len(), self.slots.len());
        let mut logits = Vec::new();
        for (slot, new) in feed.iter().enumerate().filter(|(_, new)| !new.is_empty()) {
            let about = ABOUT[slot / self.copies];
            let mut rows = std::mem::take(&mut self.slots[slot]);
            if rows.is_empty() {
                assert_eq!(slot % self.copies, 0, "the prompt is read once");
                rows.resize(self.prefix, Row::Image(about));
            }
            rows.extend(new.iter().map(|&id| Row::Token(id)));
            assert!(rows.len() <= self.prefix + self.tokens, "no room was allocated for {rows:?}");
            let image = match rows[0] {
                Row::Image(image) => image,
                Row::Token(_) => about,
            };
            let token = |row: &Row| match row {
                Row::Image(_) => panic!("an image inside of a text"),
                Row::Token(id) => *id,
            };
            let text: Vec<u32> = rows[self.prefix..].iter().map(token).collect();
            logits.extend_from_slice(self.logits(image, &text));
            self.slots[slot] = rows;
        }
        Ok(Tensor::from_f32([logits.len() / VOCAB, VOCAB], &logits)?)
    }

    fn copy(&mut self, copies: &[CopyRows]) -> Result<()> {
        let sources: HashSet<usize> = copies.iter().map(|c| c.from).collect();
        let targets: HashSet<usize> = copies.iter().map(|c| c.to).collect();
        assert!(sources.is_disjoint(&targets) && targets.len() == copies.len(), "{copies:?}");
        for CopyRows { from, to, rows } in copies {
            assert_eq!(from / self.copies, to / self.copies, "slots of the same prompt");
            let (common, copied) =
                (&self.slots[*from][..rows.start], self.slots[*from][rows.clone()].to_vec());
            assert_eq!(common, &self.slots[*to][..rows.start], "rows that are not copied are equal");
            let prompt = self.prefix + prompts()[from / self.copies].len();
            let start = if self.slots[*to].is_empty() { 0 } else { prompt };
            assert_eq!(rows.start, start, "image and prompt are copied once");
            self.slots[*to].truncate(rows.start);
            self.slots[*to].extend(copied);
        }
        Ok(())
    }

    fn past(&self, slot: usize) -> usize {
        self.slots[slot].len()
    }
}

fn run(slots: &mut dyn Slots, how: &GenerationConfig) -> Vec<Vec<u32>> {
    generate::run(&Cx::cpu(), slots, &prompts(), how, Hooks::default()).unwrap()
}

/// The rule of the repetition penalty (arXiv 1909.05858).
fn penalize(scores: &mut [f64], text: &[u32], penalty: f64) {
    for (id, score) in scores.iter_mut().enumerate() {
        if text.contains(&(id as u32)) {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    logits.iter().map(|&x| f64::from(x) - sum.ln()).collect()
}

fn argmax(scores: &[f64]) -> u32 {
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap() as u32
}

/// The score of a text of n new tokens after `prompt`: Σ over its tokens of their penalized log-probabilities.
fn sum(chain: &Chain, image: usize, prompt: &[u32], answer: &[u32], penalty: f64) -> f64 {
    let score = |n: usize| {
        let text = [prompt, &answer[..n]].concat();
        let mut scores = log_softmax(chain.logits(image, &text));
        penalize(&mut scores, &text, penalty);
        scores[answer[n] as usize]
    };
    (0..answer.len()).map(score).sum()
}

/// `texts` continued by every token.
fn continued(texts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let each = |text: &Vec<u32>| (0..VOCAB as u32).map(|id| [&text[..], &[id]].concat()).collect::<Vec<_>>();
    texts.iter().flat_map(each).collect()
}

/// `texts`, largest value first.
fn sorted(mut texts: Vec<Vec<u32>>, value: impl Fn(&[u32]) -> f64) -> Vec<Vec<u32>> {
    texts.sort_by(|a, b| value(b).total_cmp(&value(a)));
    texts
}

fn is_open(text: &[u32]) -> bool {
    text.last() != Some(&END)
}

/// All answers of at most `limit` tokens, best mean score first.
fn exhaustive(chain: &Chain, image: usize, prompt: &[u32], limit: usize, penalty: f64) -> Vec<Vec<u32>> {
    let (mut open, mut done) = (vec![Vec::new()], Vec::new());
    for _ in 0..limit {
        let (unfinished, finished) = continued(&open).into_iter().partition(|text| is_open(text));
        done.extend::<Vec<_>>(finished);
        open = unfinished;
    }
    done.extend(open);
    sorted(done, |text| sum(chain, image, prompt, text, penalty) / text.len() as f64)
}

/// Beam search that ends with `n` finished answers, over texts alone: of each length it keeps the `n` best unfinished
/// continuations of those it kept. An answer is finished if it is among the `n` best of all continuations.
fn beams(chain: &Chain, image: usize, prompt: &[u32], n: usize, limit: usize, penalty: f64) -> Vec<Vec<u32>> {
    let (mut open, mut done) = (vec![Vec::new()], Vec::new());
    for _ in 0..limit {
        let all = sorted(continued(&open), |text| sum(chain, image, prompt, text, penalty));
        done.extend(all.iter().take(n).filter(|text| !is_open(text)).cloned());
        open = all.into_iter().filter(|text| is_open(text)).take(n).collect();
        if done.len() >= n {
            open.clear();
        }
    }
    done.extend(open);
    let mut best = sorted(done, |text| sum(chain, image, prompt, text, penalty) / text.len() as f64);
    best.truncate(n);
    best
}

fn greedy(chain: &Chain, image: usize, prompt: &[u32], limit: usize, penalty: f64) -> Vec<u32> {
    let mut text = prompt.to_vec();
    while text.len() < prompt.len() + limit && (text.len() == prompt.len() || is_open(&text)) {
        let mut scores: Vec<f64> = chain.logits(image, &text).iter().map(|&x| f64::from(x)).collect();
        penalize(&mut scores, &text, penalty);
        text.push(argmax(&scores));
    }
    text.split_off(prompt.len())
}

fn how(limit: usize, repetition_penalty: f32) -> GenerationConfig {
    GenerationConfig { eos_token_id: vec![END], repetition_penalty, ..GenerationConfig::greedy(limit) }
}

/// The expected answers of all prompts.
fn all<T>(of: impl Fn(usize, &[u32]) -> Vec<T>) -> Vec<T> {
    prompts().iter().zip(ABOUT).flat_map(|(prompt, image)| of(image, prompt)).collect()
}

#[test]
fn greedy_search_takes_the_most_probable_token() {
    let mut answers = Vec::new();
    for prefix in [0, 1, 3] {
        let chain = &mut Chain::new(prefix);
        for penalty in [1.0, 1.75] {
            let expected = all(|image, prompt| vec![greedy(chain, image, prompt, 4, penalty)]);
            assert_eq!(run(chain, &how(4, penalty as f32)), expected, "{prefix} {penalty}");
            answers.push(expected);
        }
    }
    // Some answers end before their limit, and the penalty matters, or this test would be weak.
    assert!(answers[0].iter().any(|a| a.len() < 4) && answers[0].iter().any(|a| a.len() == 4), "{answers:?}");
    assert_ne!(answers[0], answers[1]);
}

#[test]
fn three_beams_find_what_a_search_over_texts_finds() {
    for prefix in [0, 1, 3] {
        let chain = &mut Chain::new(prefix);
        for penalty in [1.0, 1.75] {
            let with = GenerationConfig {
                num_beams: 3,
                num_return_sequences: 3,
                early_stopping: EarlyStopping::True,
                ..how(5, penalty as f32)
            };
            let found = run(chain, &with);
            let expected = all(|image, prompt| {
                let room = CONTEXT - prompt.len() + 1;
                beams(chain, image, prompt, 3, room.min(5), penalty)
            });
            assert_eq!(found, expected, "{prefix} {penalty}");
        }
    }
}

#[test]
fn beams_for_all_answers_find_the_best_of_them() {
    let mut better = 0;
    for (prefix, penalty) in [(0, 1.0), (2, 1.0), (2, 1.75)] {
        let chain = &mut Chain::new(prefix);
        // There are 1 + 4 + 16·5 answers of at most three tokens.
        let with = GenerationConfig { num_beams: 100, num_return_sequences: 10, ..how(3, penalty as f32) };
        let found = run(chain, &with);
        let expected = all(|image, prompt| exhaustive(chain, image, prompt, 3, penalty)[..10].to_vec());
        assert_eq!(found, expected, "{prefix} {penalty}");
        let greedy = all(|image, prompt| vec![greedy(chain, image, prompt, 3, penalty)]);
        better += found.chunks(10).zip(&greedy).filter(|(found, greedy)| found[0] != **greedy).count();
    }
    assert!(better > 0, "greedy search finds the most probable answers too, so this test is weak");
}

#[test]
fn samples_follow_the_probabilities() {
    const DRAWN: usize = 4000;
    for prefix in [0, 3] {
        let chain = &mut Chain::new(prefix);
        let with = GenerationConfig {
            do_sample: true,
            num_return_sequences: DRAWN,
            temperature: 0.7,
            top_k: 3,
            seed: 11,
            ..GenerationConfig::greedy(2)
        };
        let drawn = run(chain, &with);
        assert_eq!(drawn, run(chain, &with));
        assert_ne!(drawn, run(chain, &GenerationConfig { seed: 12, ..with }));

        // p of the next token: softmax of the three largest logits divided by the temperature.
        let p = |image: usize, text: &[u32], id: u32| {
            let logits = chain.logits(image, text);
            let rank = |i: usize| logits.iter().filter(|x| **x > logits[i]).count();
            let weight = |i: usize| if rank(i) < 3 { (f64::from(logits[i]) / 0.7).exp() } else { 0.0 };
            weight(id as usize) / (0..VOCAB).map(weight).sum::<f64>()
        };
        for ((prompt, image), drawn) in prompts().iter().zip(ABOUT).zip(drawn.chunks(DRAWN)) {
            let mut counts = HashMap::new();
            drawn.iter().for_each(|answer| *counts.entry(answer.clone()).or_insert(0) += 1);
            for answer in continued(&continued(&[Vec::new()])) {
                let p = p(image, prompt, answer[0]) * p(image, &[prompt, &answer[..1]].concat(), answer[1]);
                let share = f64::from(counts.get(&answer).copied().unwrap_or(0)) / DRAWN as f64;
                // Four standard deviations; nothing is drawn that has no probability.
                let allowed = 4.0 * (p * (1.0 - p) / DRAWN as f64).sqrt();
                assert!((share - p).abs() <= allowed, "{prefix} {prompt:?} {answer:?}: {share} for {p}");
            }
        }
    }
}

#[test]
fn the_context_counts_tokens_and_hooks_see_them() {
    for prefix in [0, 3] {
        let chain = &mut Chain::new(prefix);
        let mut streamed = vec![Vec::new(); ABOUT.len()];
        let mut on_token = |i: usize, id: u32| streamed[i].push(id);
        let hooks = Hooks { on_token: Some(&mut on_token), ends: None };
        let long = GenerationConfig::greedy(usize::MAX);
        let answers = generate::run(&Cx::cpu(), chain, &prompts(), &long, hooks).unwrap();
        assert_eq!(streamed, answers);
        let lengths: Vec<usize> = answers.iter().map(Vec::len).collect();
        assert_eq!(lengths, [7, 5, 6], "of 7 tokens all are read, and the last one predicts another");

        let mut ends = |ids: &[u32]| ids.len() == 2;
        let hooks = Hooks { on_token: None, ends: Some(&mut ends) };
        let cut: Vec<_> = answers.iter().map(|answer| &answer[..2]).collect();
        assert_eq!(generate::run(&Cx::cpu(), chain, &prompts(), &long, hooks).unwrap(), cut);
    }
}

#[test]
fn scores_are_the_logits_that_the_chain_gives() {
    let chain = &mut Chain::new(1);
    let scores = |chain: &mut Chain, how| generate::next_scores(chain, &prompts(), &how).unwrap();
    let expected = all(|image, prompt| vec![chain.logits(image, prompt).to_vec()]);
    assert_eq!(scores(chain, GenerationConfig::default()), expected);
    let found = scores(chain, how(4, 2.0));
    let halved = all(|image, prompt| {
        let mut scores: Vec<f64> = chain.logits(image, prompt).iter().map(|&x| f64::from(x)).collect();
        penalize(&mut scores, prompt, 2.0);
        vec![scores]
    });
    // Halves and doubles are exact.
    let found: Vec<Vec<f64>> = found.iter().map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect();
    assert_eq!(found, halved);
}

/// A chain whose logits are changed before generation sees them.
struct Spoiled(Chain, fn(Tensor) -> Result<Tensor>);

impl Slots for Spoiled {
    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    fn context(&self) -> usize {
        self.0.context()
    }

    fn slot_bytes(&self, tokens: usize) -> u128 {
        self.0.slot_bytes(tokens)
    }

    fn allocate(&mut self, prompts: usize, copies: usize, tokens: usize) -> Result<()> {
        self.0.allocate(prompts, copies, tokens)
    }

    fn step(&mut self, feed: &[Vec<u32>]) -> Result<Tensor> {
        self.1(self.0.step(feed)?)
    }

    fn copy(&mut self, copies: &[CopyRows]) -> Result<()> {
        self.0.copy(copies)
    }

    fn past(&self, slot: usize) -> usize {
        self.0.past(slot)
    }
}

#[test]
fn faults_are_told() {
    let ways = [
        GenerationConfig::greedy(3),
        GenerationConfig { do_sample: true, ..GenerationConfig::greedy(3) },
        GenerationConfig { num_beams: 3, ..GenerationConfig::greedy(3) },
    ];
    for with in ways {
        let fault = |slots: &mut dyn Slots, prompts: &[Vec<u32>]| {
            generate::run(&Cx::cpu(), slots, prompts, &with, Hooks::default()).unwrap_err()
        };
        let long = fault(&mut Chain::new(2), &[vec![1], vec![0; CONTEXT], vec![2]]);
        assert!(matches!(long, Error::Context { prompt: CONTEXT, context: CONTEXT }), "{long}");
        let empty = fault(&mut Chain::new(2), &[vec![1], vec![2], vec![]]);
        assert!(matches!(empty, Error::EmptyPrompt { index: 2 }), "{empty}");
        let unknown = fault(&mut Chain::new(2), &[vec![1]]);
        assert!(matches!(unknown, Error::Batch { what: "images", .. }), "{unknown}");
        let large = fault(&mut Chain { bytes: u128::MAX / 100, ..Chain::new(2) }, &prompts());
        assert!(matches!(large, Error::AnswersTooLarge { bytes: u64::MAX, .. }), "{large}");

        let spoiled = |spoil| fault(&mut Spoiled(Chain::new(0), spoil), &prompts());
        let few = spoiled(|_| Ok(Tensor::from_f32([2, VOCAB], &[0.0; 2 * VOCAB])?));
        assert!(matches!(few, Error::Batch { what: "rows of logits", found: 2, expected: 3 }), "{few}");
        let narrow = spoiled(|t| Ok(Tensor::from_f32([t.shape().rows(), 1], &vec![0.0; t.shape().rows()])?));
        let is_narrow =
            matches!(narrow, Error::Batch { what: "columns of logits", found: 1, expected: VOCAB });
        assert!(is_narrow, "{narrow}");
        let broken = spoiled(|mut t| {
            t.f32_mut()?[2 * VOCAB + 1] = f32::NAN;
            Ok(t)
        });
        assert!(matches!(broken, Error::NotFinite { step: 0, sequence: 2, .. }), "{broken}");
    }
    let none = generate::run(&Cx::cpu(), &mut Chain::new(1), &[], &how(3, 1.0), Hooks::default());
    assert!(none.unwrap().is_empty());
}
