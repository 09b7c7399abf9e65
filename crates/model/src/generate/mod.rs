//! Text generation with the options of transformers: greedy search, beam search, sampling.
//!
//! Image keys and values are computed once and shared by all answers about an image. A prompt is processed
//! once, however many beams or samples continue it. Self-attention uses a key-value cache.

mod beam;
mod config;
mod decode;
mod process;
mod warp;

pub use config::{EarlyStopping, GenerationConfig};

use std::borrow::Cow;

use pheye_ops::{Cx, argmax, topk};
use pheye_tensor::{Device, Tensor};

use crate::error::count;
use crate::loss::check_images;
use crate::{Error, Pheye, Result};
use beam::{Search, log_softmax};
use decode::Decoder;

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

impl Pheye {
    /// The keys and values of media for every cross-attention block (`None` for layers without one). They are
    /// the same for all tokens of all answers.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn cross_kv(&self, cx: &Cx, media: &Tensor) -> Result<Vec<Option<Tensor>>> {
        self.cross
            .iter()
            .map(|block| block.as_ref().map(|b| Ok(b.attn.kv_to_keep(cx, media)?)).transpose())
            .collect()
    }

    /// Answers each prompt about its image. Prompts may differ in length; each gets the answer it would get
    /// alone. `image[i]`, ascending, is the image index of prompt i, a row of media.
    ///
    /// # Errors
    /// [`Error::Generation`] when options are out of range or conflict with each other or with `hooks`. When
    /// a prompt is empty or leaves no room in the context, or an operation fails.
    pub fn generate(
        &self,
        cx: &Cx,
        kvs: &[Option<Tensor>],
        prompts: &[Vec<u32>],
        image: &[usize],
        how: &GenerationConfig,
        hooks: Hooks,
    ) -> Result<Generated> {
        how.validate()?;
        fits(how, &hooks)?;
        self.check_prompts(kvs, prompts, image)?;
        if how.max_new_tokens == 0 || prompts.is_empty() {
            return Ok(vec![Vec::new(); prompts.len() * how.num_return_sequences]);
        }

        cx.install(|| self.answers(cx, kvs, prompts, image, how, hooks))
    }

    fn answers(
        &self,
        cx: &Cx,
        kvs: &[Option<Tensor>],
        prompts: &[Vec<u32>],
        image: &[usize],
        how: &GenerationConfig,
        mut hooks: Hooks,
    ) -> Result<Generated> {
        let context = self.config.text.max_position_embeddings;
        // A full context still predicts one more token, which is not appended to the cache.
        let limits: Vec<usize> =
            prompts.iter().map(|p| how.max_new_tokens.min(context - p.len() + 1)).collect();
        let capacity = prompts.iter().zip(&limits).map(|(p, limit)| p.len() + limit - 1).max().unwrap_or(0);
        let copies = how.num_beams.max(how.num_return_sequences);
        self.check_memory(prompts.len(), copies, capacity)?;
        let images = image.iter().flat_map(|&p| std::iter::repeat_n(p, copies)).collect();
        let mut decoder = Decoder::new(self, cx, kvs, images, capacity)?;

        let mut feed = vec![Vec::new(); prompts.len() * copies];
        prompts.iter().enumerate().for_each(|(i, prompt)| feed[i * copies].clone_from(prompt));
        let logits = decoder.step(&feed)?;
        let others = |(i, prompt): (usize, &Vec<u32>)| {
            let (first, len) = (i * copies, prompt.len());
            (first + 1..first + copies).map(move |slot| (first, slot, 0..len))
        };
        decoder.copy(&prompts.iter().enumerate().flat_map(others).collect::<Vec<_>>())?;

        let request = Request { prompts, how, limits, copies };
        if how.num_beams > 1 {
            request.with_beams(&mut decoder, &logits, &mut hooks)
        } else {
            request.one_by_one(cx, &mut decoder, logits, &mut hooks)
        }
    }

    /// Scores `[vocab_size]` of the token after each prompt, after processors and, with `do_sample`, warpers.
    /// Sampling draws from their softmax.
    ///
    /// # Errors
    /// When [`Pheye::generate`] fails.
    pub fn next_scores(
        &self,
        cx: &Cx,
        kvs: &[Option<Tensor>],
        prompts: &[Vec<u32>],
        image: &[usize],
        how: &GenerationConfig,
    ) -> Result<Vec<Vec<f32>>> {
        how.validate()?;
        self.check_prompts(kvs, prompts, image)?;
        let Some(capacity) = prompts.iter().map(Vec::len).max() else { return Ok(Vec::new()) };
        let mut decoder = Decoder::new(self, cx, kvs, image.to_vec(), capacity)?;
        let logits = decoder.step(prompts)?;
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

    /// Returns an error unless the CPU's memory can hold the caches of `capacity` tokens and the logits, for
    /// `copies` answers to each of `prompts` prompts. A GPU reports a lack of memory when they are allocated.
    fn check_memory(&self, prompts: usize, copies: usize, capacity: usize) -> Result<()> {
        let c = &self.config.text;
        let wide = |n: usize| n as u128;
        // Keys and values of each layer; logits, a copy of them, and the scores.
        let floats =
            2 * wide(c.num_hidden_layers) * wide(capacity) * wide(c.hidden_size) + 3 * wide(c.vocab_size);
        let bytes = 4 * wide(prompts) * wide(copies) * floats;
        let room = usize::try_from(bytes).ok().filter(|bytes| *bytes <= isize::MAX as usize);
        // Reserving memory without touching it is cheap, and fails at once for a size that the system cannot
        // provide.
        if room.is_some_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok()) {
            return Ok(());
        }
        let answers = prompts.saturating_mul(copies);
        Err(Error::AnswersTooLarge {
            answers,
            tokens: capacity,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        })
    }

    /// Checks that prompts leave room in the context, and that there are keys and values for their images.
    /// Checks that prompts fit into the context, and that each is about one of the images of `kvs`.
    pub(crate) fn check_prompts(
        &self,
        kvs: &[Option<Tensor>],
        prompts: &[Vec<u32>],
        image: &[usize],
    ) -> Result<()> {
        let context = self.config.text.max_position_embeddings;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        if longest >= context {
            return Err(Error::Context { prompt: longest, context });
        }
        if let Some(index) = prompts.iter().position(Vec::is_empty) {
            return Err(Error::EmptyPrompt { index });
        }
        count("layers of keys and values", kvs.len(), self.cross.len())?;
        let media = kvs.iter().flatten().map(|kv| kv.shape().rows() / self.config.media_tokens()).min();
        check_images(image, prompts.len(), media.unwrap_or(usize::MAX))
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

impl Request<'_> {
    /// Greedy search and sampling. Each slot is an answer to which the chosen tokens are appended. `logits`
    /// are those after the prompts.
    fn one_by_one(
        &self,
        cx: &Cx,
        decoder: &mut Decoder,
        mut logits: Tensor,
        hooks: &mut Hooks,
    ) -> Result<Generated> {
        let slots = self.prompts.len() * self.copies;
        // Prompts with their answers.
        let mut texts: Vec<Vec<u32>> =
            (0..slots).map(|slot| self.prompts[slot / self.copies].clone()).collect();
        // The slots of unfinished answers, and the rows of their logits.
        let mut open: Vec<(usize, usize)> = (0..slots).map(|slot| (slot, slot / self.copies)).collect();
        while !open.is_empty() {
            let chosen = self.choose(cx, &logits, &texts, &open)?;
            let mut feed = vec![Vec::new(); slots];
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
                logits = decoder.step(&feed)?;
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
    fn with_beams(&self, decoder: &mut Decoder, logits: &Tensor, hooks: &mut Hooks) -> Result<Generated> {
        let vocab = logits.shape().cols();
        let mut searches: Vec<Search> = (self.limits.iter().enumerate())
            .map(|(i, &limit)| Search::new(i * self.copies..(i + 1) * self.copies, limit))
            .collect();
        let slots = searches.len() * self.copies;
        let mut row_of: Vec<usize> = (0..slots).map(|slot| slot / self.copies).collect();
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
                // Only tokens after the prompt are copied; every slot already has a copy of the prompt.
                copies.extend(moves.iter().map(|m| (m.from, m.to, prompt.len()..decoder.past(m.from))));
            }
            let mut feed = vec![Vec::new(); slots];
            for beam in searches.iter().flat_map(|s| &s.beams) {
                feed[beam.slot].extend(beam.ids.last());
            }
            let fed = rows(&feed);
            if fed.is_empty() {
                break;
            }
            decoder.copy(&copies)?;
            values = decoder.step(&feed)?.to_vec_f32()?;
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
