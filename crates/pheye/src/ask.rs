//! A model with its tokenizer and image preprocessing, which answers questions about images.

use std::path::Path;
use std::time::{Duration, Instant};

use pheye_image::{Preprocess, Rgb8, Tiles};
use pheye_model::{
    CONFIG_FILE, Config, GenerationConfig, Hooks, OnToken, Options, Pheye, WEIGHTS_FILE, stack,
};
use pheye_ops::Cx;
use pheye_tensor::{Device, ParamTable, Tensor};
use pheye_text::{TextStream, Tokenizer, Until, find_stop};
use pheye_weights::Checkpoint;

use crate::{ModelFiles, Result};

/// A model with its tokenizer, ready to answer questions.
#[derive(Debug)]
pub struct Assistant {
    /// The model.
    pub model: Pheye,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// An answer and its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text before the end token and any stop string, trimmed.
    pub text: String,
    /// The generated token ids.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// With an end token.
    End,
    /// With one of `stop_strings`.
    Stop,
    /// At the largest number of tokens, or at the end of the context.
    Length,
}

/// How long the answers to some questions took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Times {
    /// To the first token: the prompts through the language model. `None` for beam search, which reports no tokens.
    pub prefill: Option<Duration>,
    /// To the last token.
    pub total: Duration,
}

/// Encoded images: the keys and values of cross-attention, for any number of questions.
#[derive(Debug)]
pub struct Seen {
    kvs: Vec<Option<Tensor>>,
}

/// A token of an answer, and where the model looked when it chose the token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Look {
    /// The token's text.
    pub text: String,
    /// Shares of the cross-attention weights, which add up to 1: on the global image, then on each tile,
    /// column by column.
    pub views: Vec<f32>,
    /// Shares of the cross-attention weights on the patches of the image, row by row, at the resolution of the tiles: a
    /// patch of the global image lies under L² patches of tiles and is divided among them. They add up to 1 less the
    /// shares of the class tokens, which are at no place.
    pub patches: Vec<f32>,
    /// Number of patches in a row: L times that of one view.
    pub across: usize,
}

/// Called with the index of an answer and the next piece of its text.
pub type OnText<'a> = dyn FnMut(usize, &str) + Send + 'a;

impl Assistant {
    /// Loads the model in `folder`, in either layout, with its tokenizer.
    ///
    /// # Errors
    /// Returns an error if the folder has no model, or if the weights or the tokenizer do not match its
    /// configuration.
    pub fn load(folder: &Path, options: Options) -> Result<Assistant> {
        Assistant::load_located(&ModelFiles::folder(folder), options, |_, _| ())
    }

    /// Loads the model with the files `files`, in either layout, and its tokenizer. `progress` receives the
    /// number of bytes of weights loaded so far and their total.
    ///
    /// # Errors
    /// Returns the errors of [`ModelFiles::check`] and [`Assistant::load`].
    pub fn load_located(
        files: &ModelFiles,
        options: Options,
        progress: impl FnMut(u64, u64),
    ) -> Result<Assistant> {
        files.check()?;
        let tokenizer = Tokenizer::from_file(files.tokenizer(), None)?;
        let named = |name: &str| files.find(name);
        tokenizer.check_fits(Config::load_named(&files.folder, &named)?.text.vocab_size)?;
        Ok(Assistant { model: Pheye::load_named(&files.folder, options, &named, progress)?, tokenizer })
    }

    /// Loads a model whose files in this project's layout are embedded in the program: `pheye.json`, the bytes of
    /// `model.safetensors`, and `tokenizer.json`.
    ///
    /// # Errors
    /// Returns the errors of [`Assistant::load`].
    pub fn embedded(
        config: &str,
        weights: &'static [u8],
        tokenizer: &[u8],
        options: Options,
    ) -> Result<Assistant> {
        let config = Config::from_text(CONFIG_FILE, config)?;
        let tokenizer = Tokenizer::from_bytes(tokenizer, None)?;
        tokenizer.check_fits(config.text.vocab_size)?;
        let checkpoint = Checkpoint::embedded(WEIGHTS_FILE, weights).map_err(pheye_model::Error::from)?;
        Ok(Assistant { model: Pheye::from_checkpoint(&config, &checkpoint, options, |_, _| ())?, tokenizer })
    }

    /// The nano model that is embedded in the program.
    ///
    /// # Errors
    /// Returns an error if there is not enough memory.
    #[cfg(feature = "nano")]
    pub fn nano(options: Options) -> Result<Assistant> {
        Assistant::embedded(pheye_nano::CONFIG, pheye_nano::WEIGHTS, pheye_nano::TOKENIZER, options)
    }

    /// Moves the model to `device`. On a GPU, its matrices are converted to bf16.
    ///
    /// # Errors
    /// Returns an error if the device does not have enough memory.
    pub fn move_to(&mut self, device: &Device) -> Result<()> {
        self.model.move_to(device, &ParamTable::default())?;
        Ok(())
    }

    /// How images are preprocessed for this model.
    pub fn preprocess(&self) -> Preprocess {
        let c = self.model.config();
        Preprocess::new(c.vision.image_size, c.connector.level)
    }

    /// The token ids of a question in this model's prompt template.
    ///
    /// # Errors
    /// Returns an error if the question is empty, or too long for the context.
    pub fn prompt(&self, question: &str) -> Result<Vec<u32>> {
        let c = self.model.config();
        Ok(c.prompt.encode_prompt(&self.tokenizer, question, c.text.max_position_embeddings)?)
    }

    /// Answers questions about images. `questions[i]` is about image `about[i]`, and `about` is ascending.
    /// Each image is encoded once. The answers have the order of the questions, with `num_return_sequences`
    /// answers to each. If `eos_token_id` is empty, the tokenizer's end token is used. `on_text(i, piece)`
    /// receives the text of answer i in pieces.
    ///
    /// # Errors
    /// Returns an error if a question is empty or too long for the context, if options conflict (such as
    /// `on_text` with beam search), or if an operation fails.
    pub fn ask(
        &self,
        cx: &Cx,
        images: &[&Tiles],
        questions: &[&str],
        about: &[usize],
        how: &GenerationConfig,
        on_text: Option<&mut OnText>,
    ) -> Result<Vec<Answer>> {
        // Checked first, because encoding the images takes long.
        how.validate()?;
        self.prompts(questions)?;
        self.ask_seen(cx, &self.see(cx, images)?, questions, about, how, on_text)
    }

    /// Encodes images, for [`Assistant::ask_seen`] and [`Assistant::look`].
    ///
    /// # Errors
    /// Returns an error if the pixels have the wrong size for this model, or if there is not enough memory.
    pub fn see(&self, cx: &Cx, images: &[&Tiles]) -> Result<Seen> {
        let parts: Vec<_> = images.iter().map(|p| (&p.global[..], &p.local[..])).collect();
        let pixels = stack(self.model.config().vision.image_size, &parts)?;
        let media = self.model.encode(cx, &pixels, images.len())?;
        Ok(Seen { kvs: self.model.cross_kv(cx, &media)? })
    }

    fn prompts(&self, questions: &[&str]) -> Result<Vec<Vec<u32>>> {
        questions.iter().map(|q| self.prompt(q)).collect()
    }

    /// Where the model looks as it generates `answer` to a question about image `image` of `seen`: one
    /// [`Look`] for each token of the answer, without end tokens. Runs the language model once over question
    /// and answer.
    ///
    /// # Errors
    /// Returns an error if the question is empty or too long, or if an operation fails.
    pub fn look(
        &self,
        cx: &Cx,
        seen: &Seen,
        image: usize,
        question: &str,
        answer: &Answer,
    ) -> Result<Vec<Look>> {
        let (ids, first) = self.read(question, answer)?;
        let tokens = self.model.attention_by_image_token(cx, &seen.kvs, image, &ids)?;
        let mut looks = Vec::new();
        // A token is chosen by the step that reads the token before it.
        for (id, shares) in ids[first..].iter().zip(&tokens[first - 1..]) {
            looks.push(self.look_at(self.tokenizer.decode(&[*id])?, shares));
        }
        Ok(looks)
    }

    /// The look of a token with the share `shares[i]` of its attention on image token i.
    fn look_at(&self, text: String, shares: &[f32]) -> Look {
        let c = self.model.config();
        let (level, grid) = (c.connector.level, c.vision.image_size / c.vision.patch_size);
        let views: Vec<&[f32]> = shares.chunks_exact(c.vision.tokens()).collect();
        let across = level * grid;
        let patches = (0..across * across).map(|i| {
            let (x, y) = (i % across, i / across);
            let patch = |view: usize, x: usize, y: usize| views[view][1 + y * grid + x];
            let whole = patch(0, x / level, y / level) / (level * level) as f32;
            // Tiles are numbered column by column.
            let tile = 1 + x / grid * level + y / grid;
            whole + if views.len() > 1 { patch(tile, x % grid, y % grid) } else { 0.0 }
        });
        let patches = patches.collect();
        Look { text, views: views.iter().map(|view| view.iter().sum()).collect(), patches, across }
    }

    /// [`Assistant::ask`] about images that [`Assistant::see`] has encoded.
    ///
    /// # Errors
    /// Returns the errors of [`Assistant::ask`].
    pub fn ask_seen(
        &self,
        cx: &Cx,
        seen: &Seen,
        questions: &[&str],
        about: &[usize],
        how: &GenerationConfig,
        on_text: Option<&mut OnText>,
    ) -> Result<Vec<Answer>> {
        Ok(self.ask_timed(cx, seen, questions, about, how, on_text)?.0)
    }

    /// [`Assistant::ask_seen`], and how long it took.
    ///
    /// # Errors
    /// Returns the errors of [`Assistant::ask`].
    pub fn ask_timed(
        &self,
        cx: &Cx,
        Seen { kvs }: &Seen,
        questions: &[&str],
        about: &[usize],
        how: &GenerationConfig,
        on_text: Option<&mut OnText>,
    ) -> Result<(Vec<Answer>, Times)> {
        let (began, mut times) = (Instant::now(), Times::default());
        let mut how = how.clone();
        if how.eos_token_id.is_empty() {
            how.eos_token_id.push(self.tokenizer.end_token());
        }
        let prompts = self.prompts(questions)?;
        let streams = on_text.is_some();
        let mut live = on_text.map(|on_text| Live::new(self, &how, on_text, questions.len()));
        let mut on_token = |i: usize, id: u32| {
            times.prefill.get_or_insert_with(|| began.elapsed());
            if let Some(live) = &mut live {
                live.token(i, id);
            }
        };
        let stops = &how.stop_strings;
        // An error of the decoder is ignored here, because it occurs again when the final text is decoded.
        let mut ends = |ids: &[u32]| {
            !stops.is_empty()
                && find_stop(stops, &text(&self.tokenizer, ids, &how).unwrap_or_default()).is_some()
        };
        // Beam search has no tokens before its end, and the library refuses to report them.
        let on_token = (streams || how.num_beams == 1).then_some(&mut on_token as &mut OnToken);
        let hooks = Hooks { on_token, ends: Some(&mut ends) };
        let ids = self.model.generate(cx, kvs, &prompts, about, &how, hooks)?;
        times.total = began.elapsed();
        if let Some(live) = live {
            live.finish()?;
        }
        let answers = ids.into_iter().map(|ids| answer(&self.tokenizer, ids, &how)).collect::<Result<_>>()?;
        Ok((answers, times))
    }

    /// The log-probability of each answer to a question, in nats: the sum over its tokens, with the end token, under
    /// the model's distribution. `answers[i]` is the answer to `questions[i]`, which is about image `about[i]` of
    /// `seen`. Runs the language model once over questions and answers.
    ///
    /// # Errors
    /// Returns an error if a question is empty or too long, or if an operation fails.
    pub fn log_probs(
        &self,
        cx: &Cx,
        seen: &Seen,
        questions: &[&str],
        about: &[usize],
        answers: &[Answer],
    ) -> Result<Vec<f64>> {
        let answers: Vec<Vec<u32>> = answers.iter().map(|answer| answer.ids.clone()).collect();
        Ok(self.model.log_probs(cx, &seen.kvs, &self.prompts(questions)?, &answers, about)?)
    }

    /// For each cross-attention block, the share of its attention weights that falls on the tokens of the global
    /// image, averaged over heads and the tokens of `answer`, without end tokens (Appendix C of the paper). 1 in a model
    /// without tiles. The weights are summed in the attention kernel.
    ///
    /// # Errors
    /// Returns an error if the question is empty or too long, or if an operation fails.
    pub fn global_attention(
        &self,
        cx: &Cx,
        seen: &Seen,
        image: usize,
        question: &str,
        answer: &Answer,
    ) -> Result<Vec<f32>> {
        let (ids, first) = self.read(question, answer)?;
        let layers = self.model.attention_by_layer(cx, &seen.kvs, image, &ids)?;
        // As for [`Assistant::look`]; an empty answer has the step that chose its end.
        let steps = first - 1..(ids.len() - 1).max(first);
        let share = |layer: Vec<Vec<f32>>| {
            let rows = &layer[steps.clone()];
            rows.iter().map(|views| views[0]).sum::<f32>() / rows.len() as f32
        };
        Ok(layers.into_iter().map(share).collect())
    }

    /// The tokens of a question and of its answer without end tokens, and the index of the first of the answer, which is
    /// at least 1.
    fn read(&self, question: &str, answer: &Answer) -> Result<(Vec<u32>, usize)> {
        let mut ids = self.prompt(question)?;
        let first = ids.len();
        ids.extend(answer.ids.iter().filter(|id| **id != self.tokenizer.end_token()));
        Ok((ids, first))
    }

    /// Answers one question about one image. If several answers are requested, the first is returned.
    ///
    /// # Errors
    /// Returns the errors of [`Assistant::ask`].
    pub fn answer(&self, cx: &Cx, image: &Rgb8, question: &str, how: &GenerationConfig) -> Result<Answer> {
        let tiles = self.preprocess().pixels(image);
        Ok(self.ask(cx, &[&tiles], &[question], &[0], how, None)?.swap_remove(0))
    }
}

/// The answer of the tokens `ids`.
pub(crate) fn answer(tokenizer: &Tokenizer, ids: Vec<u32>, how: &GenerationConfig) -> Result<Answer> {
    let mut text = text(tokenizer, &ids, how)?;
    let ended = ids.last().is_some_and(|id| how.eos_token_id.contains(id));
    let finish = match find_stop(&how.stop_strings, &text) {
        Some(at) => {
            text.truncate(at);
            Finish::Stop
        }
        None if ended => Finish::End,
        None => Finish::Length,
    };
    Ok(Answer { text: text.trim().to_owned(), ids, finish })
}

/// The text of an answer without its end tokens.
pub(crate) fn text(tokenizer: &Tokenizer, ids: &[u32], how: &GenerationConfig) -> Result<String> {
    let ids: Vec<u32> = ids.iter().copied().filter(|id| !how.eos_token_id.contains(id)).collect();
    Ok(tokenizer.decode(&ids)?)
}

/// Streams the text of answers to a callback.
struct Live<'a, 'f> {
    how: &'a GenerationConfig,
    on_text: &'f mut OnText<'f>,
    answers: Vec<(TextStream<'a>, Until<'a>)>,
    failed: Option<pheye_text::Error>,
}

impl<'a, 'f> Live<'a, 'f> {
    fn new(
        assistant: &'a Assistant,
        how: &'a GenerationConfig,
        on_text: &'f mut OnText<'f>,
        questions: usize,
    ) -> Live<'a, 'f> {
        let answer = |_| (assistant.tokenizer.stream(), Until::new(&how.stop_strings));
        let answers = (0..questions * how.num_return_sequences).map(answer).collect();
        Live { how, on_text, answers, failed: None }
    }

    fn token(&mut self, i: usize, id: u32) {
        let (stream, until) = &mut self.answers[i];
        if self.how.eos_token_id.contains(&id) || self.failed.is_some() {
            return;
        }
        match stream.push(id) {
            Ok(piece) => give(self.on_text, i, until.push(&piece.unwrap_or_default())),
            Err(e) => self.failed = Some(e),
        }
    }

    /// Passes on the text that was held back.
    fn finish(self) -> Result<()> {
        if let Some(e) = self.failed {
            return Err(e.into());
        }
        for (i, (stream, mut until)) in self.answers.into_iter().enumerate() {
            if let Some(rest) = stream.finish()? {
                give(self.on_text, i, until.push(&rest));
            }
            give(self.on_text, i, until.finish());
        }
        Ok(())
    }
}

fn give(on_text: &mut OnText, i: usize, piece: &str) {
    if !piece.is_empty() {
        on_text(i, piece);
    }
}
