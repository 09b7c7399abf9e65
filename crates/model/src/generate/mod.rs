//! Text generation with the options of transformers: greedy search, beam search, sampling.
//!
//! A prompt is processed once, however many beams or samples continue it. The language model is known only through
//! [`Slots`], the decoding step over its key-value cache, so that [`run`] generates with any model that implements it.
//! [`crate::Pheye::generate`] does so with Pheye, whose keys and values of an image are computed once and shared by all
//! answers about it.

mod beam;
mod caches;
mod config;
mod decode;
mod process;
mod slots;
mod warp;

pub use caches::SlotCaches;
pub use config::{EarlyStopping, GenerationConfig};
pub use slots::{CopyRows, Slots};

use std::borrow::Cow;

use pheye_ops::{Cx, argmax, topk};
use pheye_tensor::{Device, Tensor};

use crate::error::count;
use crate::{Error, Result};
use beam::{Search, log_softmax};

/// The generated tokens, in prompt order. Several answers to one prompt are adjacent; with beam search the
/// best comes first.
pub type Generated = Vec<Vec<u32>>;

/// Called with the index of the answer and its next token.
pub type OnToken<'a> = dyn FnMut(usize, u32) + Send + 'a;

/// Whether an answer with these tokens is complete.
pub type Ends<'a> = dyn FnMut(&[u32]) -> bool + Send + 'a;

/// Callbacks during generation.
#[derive(Default)]
pub struct Hooks<'a> {
    /// Called with each token of answer i as it is chosen. Not available with beam search, which may discard
    /// tokens.
    pub on_token: Option<&'a mut OnToken<'a>>,
    /// Whether an answer of these tokens is complete, in addition to `eos_token_id`; used for stop strings.
    pub ends: Option<&'a mut Ends<'a>>,
}

impl std::fmt::Debug for Hooks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hooks(on_token: {}, ends: {})", self.on_token.is_some(), self.ends.is_some())
    }
}

impl Hooks<'_> {
    fn ends(&mut self, ids: &[u32]) -> bool {
        self.ends.as_mut().is_some_and(|ends| ends(ids))
    }
}

/// Prompts, the generation options, and the maximum length of each answer.
struct Request<'a> {
    prompts: &'a [Vec<u32>],
    how: &'a GenerationConfig,
    limits: Vec<usize>,
    /// Number of slots for each prompt: its beams or samples.
    copies: usize,
}

/// Answers each prompt. Prompts may differ in length; each gets the answer it would get alone. `cx` is the context in
/// which `slots` computes.
///
/// # Errors
/// [`Error::Generation`] when options are out of range or conflict with each other or with `hooks`. When a prompt is
/// empty or leaves no room in the context, memory for the answers runs out, logits are not finite or have the wrong
/// shape, or `slots` fails.
pub fn run(
    cx: &Cx,
    slots: &mut dyn Slots,
    prompts: &[Vec<u32>],
    how: &GenerationConfig,
    mut hooks: Hooks,
) -> Result<Generated> {
    how.validate()?;
    fits(how, &hooks)?;
    let context = slots.context();
    check_prompts(prompts, context)?;
    if how.max_new_tokens == 0 || prompts.is_empty() {
        return Ok(vec![Vec::new(); prompts.len() * how.num_return_sequences]);
    }

    // A full context still predicts one more token, which is not read.
    let limit = |prompt: &Vec<u32>| how.max_new_tokens.min(context - prompt.len() + 1);
    let limits = prompts.iter().map(limit).collect();
    let copies = how.num_beams.max(how.num_return_sequences);
    let request = Request { prompts, how, limits, copies };
    cx.install(|| {
        let logits = request.prefill(slots)?;
        if how.num_beams > 1 {
            request.with_beams(slots, &logits, &mut hooks)
        } else {
            request.one_by_one(cx, slots, logits, &mut hooks)
        }
    })
}

/// Scores `[vocab_size]` of the token after each prompt, after processors and, with `do_sample`, warpers. Sampling
/// draws from their softmax.
///
/// # Errors
/// When [`run`] fails.
pub fn next_scores(
    slots: &mut dyn Slots,
    prompts: &[Vec<u32>],
    how: &GenerationConfig,
) -> Result<Vec<Vec<f32>>> {
    how.validate()?;
    check_prompts(prompts, slots.context())?;
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    let request = Request { prompts, how, limits: vec![1; prompts.len()], copies: 1 };
    let logits = request.prefill(slots)?;
    let mut values = logits.to_vec_f32()?;
    let rows = values.chunks_exact_mut(logits.shape().cols().max(1)).zip(prompts).enumerate();
    rows.map(|(sequence, (scores, prompt))| {
        finite(scores, 0, sequence)?;
        how.process(scores, prompt, prompt.len());
        if how.do_sample {
            how.warp(scores)?;
        }
        Ok(scores.to_vec())
    })
    .collect()
}

/// Checks that no prompt is empty, and that each leaves room in a context of `context` tokens.
pub(crate) fn check_prompts(prompts: &[Vec<u32>], context: usize) -> Result<()> {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    if longest >= context {
        return Err(Error::Context { prompt: longest, context });
    }
    match prompts.iter().position(Vec::is_empty) {
        Some(index) => Err(Error::EmptyPrompt { index }),
        None => Ok(()),
    }
}

/// Checks that the hooks are compatible with the options.
fn fits(how: &GenerationConfig, hooks: &Hooks) -> Result<()> {
    let refuse = |option, value, rule| Err(Error::Generation { option, value, rule });
    if how.num_beams > 1 && hooks.on_token.is_some() {
        let rule = "does not go with streaming: until the end of the search any beam may turn out the best";
        return refuse("num_beams", how.num_beams.to_string(), rule);
    }
    if !how.stop_strings.is_empty() && hooks.ends.is_none() {
        let rule = "needs a tokenizer: give Hooks::ends, or ask through pheye::Assistant";
        return refuse("stop_strings", format!("{:?}", how.stop_strings), rule);
    }
    Ok(())
}

/// Returns an error unless the CPU's memory can hold the slots of `answers` answers, with room for `tokens` tokens
/// each, and their logits. A GPU reports a lack of memory when they are allocated.
fn check_memory(slots: &dyn Slots, answers: usize, tokens: usize) -> Result<()> {
    // Logits, a copy of them, and the scores.
    let logits = 4 * 3 * slots.vocab_size() as u128;
    let bytes = slots.slot_bytes(tokens).saturating_add(logits).saturating_mul(answers as u128);
    let room = usize::try_from(bytes).ok().filter(|bytes| *bytes <= isize::MAX as usize);
    // Reserving memory without touching it is cheap, and fails at once for a size that the system cannot
    // provide.
    if room.is_some_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok()) {
        return Ok(());
    }
    Err(Error::AnswersTooLarge { answers, tokens, bytes: u64::try_from(bytes).unwrap_or(u64::MAX) })
}

/// The logits after the tokens `feed[slot]` of each slot that has some.
fn step(slots: &mut dyn Slots, feed: &[Vec<u32>]) -> Result<Tensor> {
    let logits = slots.step(feed)?;
    let fed = feed.iter().filter(|tokens| !tokens.is_empty()).count();
    count("rows of logits", logits.shape().rows(), fed)?;
    count("columns of logits", logits.shape().cols(), slots.vocab_size())?;
    Ok(logits)
}

impl Request<'_> {
    /// Reads each prompt in the first of its slots and copies that slot to the others. Returns the logits after the
    /// prompts.
    fn prefill(&self, slots: &mut dyn Slots) -> Result<Tensor> {
        let (prompts, copies) = (self.prompts.len(), self.copies);
        let tokens = |(prompt, limit): (&Vec<u32>, &usize)| prompt.len() + limit - 1;
        let tokens = self.prompts.iter().zip(&self.limits).map(tokens).max().unwrap_or(0);
        check_memory(slots, prompts.saturating_mul(copies), tokens)?;
        slots.allocate(prompts, copies, tokens)?;

        let mut feed = vec![Vec::new(); prompts * copies];
        self.prompts.iter().enumerate().for_each(|(i, prompt)| feed[i * copies].clone_from(prompt));
        let logits = step(slots, &feed)?;
        let others = |from: usize| {
            let rows = 0..slots.past(from);
            (from + 1..from + copies).map(move |to| CopyRows { from, to, rows: rows.clone() })
        };
        let moves: Vec<CopyRows> = (0..prompts).flat_map(|i| others(i * copies)).collect();
        slots.copy(&moves)?;
        Ok(logits)
    }

    /// Greedy search and sampling. Each slot is an answer to which the chosen tokens are appended. `logits`
    /// are those after the prompts.
    fn one_by_one(
        &self,
        cx: &Cx,
        slots: &mut dyn Slots,
        mut logits: Tensor,
        hooks: &mut Hooks,
    ) -> Result<Generated> {
        let answers = self.prompts.len() * self.copies;
        // Prompts with their answers.
        let mut texts: Vec<Vec<u32>> =
            (0..answers).map(|slot| self.prompts[slot / self.copies].clone()).collect();
        // The slots of unfinished answers, and the rows of their logits.
        let mut open: Vec<(usize, usize)> = (0..answers).map(|slot| (slot, slot / self.copies)).collect();
        while !open.is_empty() {
            let chosen = self.choose(cx, &logits, &texts, &open)?;
            let mut feed = vec![Vec::new(); answers];
            for (&(slot, _), id) in open.iter().zip(chosen) {
                let prompt = slot / self.copies;
                texts[slot].push(id);
                if let Some(on_token) = &mut hooks.on_token {
                    on_token(slot, id);
                }
                let answer = &texts[slot][self.prompts[prompt].len()..];
                let full = answer.len() >= self.limits[prompt];
                if !full && !self.how.eos_token_id.contains(&id) && !hooks.ends(answer) {
                    feed[slot].push(id);
                }
            }
            open = rows(&feed);
            if !open.is_empty() {
                logits = step(slots, &feed)?;
            }
        }
        let answer =
            |(slot, mut text): (usize, Vec<u32>)| text.split_off(self.prompts[slot / self.copies].len());
        Ok(texts.into_iter().enumerate().map(answer).collect())
    }

    /// The next token of each open answer.
    fn choose(
        &self,
        cx: &Cx,
        logits: &Tensor,
        texts: &[Vec<u32>],
        open: &[(usize, usize)],
    ) -> Result<Vec<u32>> {
        let vocab = logits.shape().cols();
        let step = |slot: usize| texts[slot].len() - self.prompts[slot / self.copies].len();
        if !self.how.do_sample && !self.how.has_processors() {
            let (best, telling, width) = most_probable(cx, logits)?;
            let chosen = open.iter().map(|&(slot, row)| {
                finite(&telling[row * width..(row + 1) * width], step(slot), slot)?;
                Ok(best[row])
            });
            return chosen.collect();
        }
        let values = logits.to_vec_f32()?;
        let (mut scores, mut draws) = (Vec::with_capacity(open.len() * vocab), Vec::new());
        for &(slot, row) in open {
            let prompt = self.prompts[slot / self.copies].len();
            let logits = &values[row * vocab..(row + 1) * vocab];
            finite(logits, step(slot), slot)?;
            scores.extend_from_slice(logits);
            let start = scores.len() - vocab;
            self.how.process(&mut scores[start..], &texts[slot], prompt);
            if self.how.do_sample {
                self.how.warp(&mut scores[start..])?;
                draws.push(warp::number(slot % self.copies, step(slot)));
            }
        }
        let scores = Tensor::from_f32([open.len(), vocab], &scores)?;
        match self.how.do_sample {
            true => warp::draw(&scores, &draws, self.how.seed),
            false => Ok(argmax::forward(&Cx::cpu(), &scores)?),
        }
    }

    /// Beam search. The slots of a prompt are its beams. `logits` are those after the prompts.
    fn with_beams(&self, slots: &mut dyn Slots, logits: &Tensor, hooks: &mut Hooks) -> Result<Generated> {
        let vocab = logits.shape().cols();
        let mut searches: Vec<Search> = (self.limits.iter().enumerate())
            .map(|(i, &limit)| Search::new(i * self.copies..(i + 1) * self.copies, limit))
            .collect();
        let beams = searches.len() * self.copies;
        let mut row_of: Vec<usize> = (0..beams).map(|slot| slot / self.copies).collect();
        // The rows that every slot of a prompt has already: those of the prompt.
        let common: Vec<usize> = (0..searches.len()).map(|i| slots.past(i * self.copies)).collect();
        let mut values = logits.to_vec_f32()?;
        loop {
            let mut copies = Vec::new();
            let open = searches.iter_mut().zip(self.prompts).enumerate();
            for (i, (search, prompt)) in open.filter(|(_, (search, _))| !search.beams.is_empty()) {
                let scores = |beam: &beam::Beam| {
                    let row = row_of[beam.slot];
                    let mut scores = values[row * vocab..(row + 1) * vocab].to_vec();
                    finite(&scores, beam.ids.len(), i * self.how.num_return_sequences)?;
                    log_softmax(&mut scores);
                    self.how.process(&mut scores, &[&prompt[..], &beam.ids].concat(), prompt.len());
                    Ok(scores)
                };
                let scores = search.beams.iter().map(scores).collect::<Result<Vec<_>>>()?;
                let moves = search.advance(&scores, self.how, &mut |ids| hooks.ends(ids));
                copies.extend(moves.iter().map(|m| {
                    let rows = common[i]..slots.past(m.from);
                    CopyRows { from: m.from, to: m.to, rows }
                }));
            }
            let mut feed = vec![Vec::new(); beams];
            for beam in searches.iter().flat_map(|s| &s.beams) {
                feed[beam.slot].extend(beam.ids.last());
            }
            let fed = rows(&feed);
            if fed.is_empty() {
                break;
            }
            slots.copy(&copies)?;
            values = step(slots, &feed)?.to_vec_f32()?;
            fed.iter().for_each(|&(slot, row)| row_of[slot] = row);
        }
        Ok(searches.into_iter().flat_map(|s| s.results(self.how.num_return_sequences)).collect())
    }
}

/// The most probable token of each row, and values to check for being finite, with their number per row: all
/// logits, or on a GPU only the largest, which is not finite if any logit is NaN or +∞.
fn most_probable<'a>(cx: &Cx, logits: &'a Tensor) -> Result<(Vec<u32>, Cow<'a, [f32]>, usize)> {
    match &cx.device {
        Device::Cpu => Ok((argmax::forward(cx, logits)?, logits.f32()?.into(), logits.shape().cols())),
        Device::Gpu(_) => {
            let best = topk::forward(cx, logits, 1)?;
            Ok((best.ids, best.values.into(), 1))
        }
    }
}

/// Returns an error unless all logits are finite. They are not if weights are not finite or too large.
fn finite(logits: &[f32], step: usize, sequence: usize) -> Result<()> {
    match logits.iter().all(|x| x.is_finite()) {
        true => Ok(()),
        false => Err(Error::NotFinite { what: "logit", step, sequence }),
    }
}

/// The slots with new tokens, and the rows of their logits.
fn rows(feed: &[Vec<u32>]) -> Vec<(usize, usize)> {
    let fed = feed.iter().enumerate().filter(|(_, tokens)| !tokens.is_empty());
    fed.enumerate().map(|(row, (slot, _))| (slot, row)).collect()
}
