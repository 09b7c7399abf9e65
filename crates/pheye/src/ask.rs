//! A model with its tokenizer and its eyes: a picture and a question in, an answer out.

use std::path::Path;

use pheye_image::{Preprocess, Rgb8, Tiles};
use pheye_model::{Config, Generation, Options, Pheye, stack};
use pheye_ops::Cx;
use pheye_tensor::{Device, ParamTable};
use pheye_text::Tokenizer;

use crate::{Located, Result};

/// A model ready to be asked.
#[derive(Debug)]
pub struct Assistant {
    /// The model.
    pub model: Pheye,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// An answer and the tokens it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text, without the end token, trimmed.
    pub text: String,
    /// The tokens as generated.
    pub ids: Vec<u32>,
}

impl Assistant {
    /// The model in `folder`, in either layout, with its tokenizer.
    ///
    /// # Errors
    /// A folder without a model, weights or a tokenizer that do not fit.
    pub fn load(folder: &Path, options: Options) -> Result<Assistant> {
        Assistant::load_located(&Located::folder(folder), options, |_, _| ())
    }

    /// The model whose files are at `files`, in either layout, with its tokenizer; `progress` is told the bytes of weights
    /// done and all bytes as they load.
    ///
    /// # Errors
    /// As [`Assistant::load`].
    pub fn load_located(
        files: &Located,
        options: Options,
        progress: impl FnMut(u64, u64),
    ) -> Result<Assistant> {
        let tokenizer = Tokenizer::from_file(files.tokenizer(), None)?;
        let named = |name: &str| files.find(name);
        tokenizer.check_fits(Config::load_named(&files.folder, &named)?.text.vocab_size)?;
        Ok(Assistant { model: Pheye::load_named(&files.folder, options, &named, progress)?, tokenizer })
    }

    /// Moves the model to `device`. On a GPU its matrices are kept in bf16.
    ///
    /// # Errors
    /// When the device's memory does not suffice.
    pub fn move_to(&mut self, device: &Device) -> Result<()> {
        self.model.move_to(device, &ParamTable::default())?;
        Ok(())
    }

    /// How this model sees pictures.
    pub fn preprocess(&self) -> Preprocess {
        let c = self.model.config();
        Preprocess::new(c.vision.image_size, c.connector.level)
    }

    /// The tokens of a question in this model's prompt.
    ///
    /// # Errors
    /// An empty question, or one too long for the context.
    pub fn prompt(&self, question: &str) -> Result<Vec<u32>> {
        let c = self.model.config();
        Ok(c.prompt.encode_prompt(&self.tokenizer, question, c.text.max_position_embeddings)?)
    }

    /// Answers questions about pictures, greedily: `questions[i]` is about picture `about[i]`, ascending. A picture
    /// is encoded once, however many questions there are. `on_text(i, piece)` sees each answer grow.
    ///
    /// # Errors
    /// An empty question, one too long for the context, and those of the operations.
    pub fn ask(
        &self,
        cx: &Cx,
        pictures: &[&Tiles],
        questions: &[&str],
        about: &[usize],
        max_new_tokens: usize,
        mut on_text: impl FnMut(usize, &str),
    ) -> Result<Vec<Answer>> {
        let prompts = questions.iter().map(|q| self.prompt(q)).collect::<Result<Vec<_>>>()?;
        let parts: Vec<_> = pictures.iter().map(|p| (&p.global[..], &p.local[..])).collect();
        let pixels = stack(self.model.config().vision.image_size, &parts)?;
        let media = self.model.encode(cx, &pixels, pictures.len())?;
        let kvs = self.model.cross_kv(cx, &media)?;
        let end = self.tokenizer.end_token();
        let how = Generation { max_new_tokens, end: Some(end) };
        let mut streams: Vec<_> = questions.iter().map(|_| self.tokenizer.stream()).collect();
        let mut failed = None;
        let ids = self.model.generate(cx, &kvs, &prompts, about, how, |i, id| {
            if id != end && failed.is_none() {
                match streams[i].push(id) {
                    Ok(Some(piece)) => on_text(i, &piece),
                    Ok(None) => {}
                    Err(e) => failed = Some(e),
                }
            }
        })?;
        if let Some(e) = failed {
            return Err(e.into());
        }
        ids.into_iter()
            .map(|ids| {
                let text: Vec<u32> = ids.iter().copied().filter(|&id| id != end).collect();
                Ok(Answer { text: self.tokenizer.decode(&text)?.trim().to_owned(), ids })
            })
            .collect()
    }

    /// Answers one question about one picture.
    ///
    /// # Errors
    /// As [`Assistant::ask`].
    pub fn answer(&self, cx: &Cx, picture: &Rgb8, question: &str, max_new_tokens: usize) -> Result<Answer> {
        let tiles = self.preprocess().pixels(picture);
        Ok(self.ask(cx, &[&tiles], &[question], &[0], max_new_tokens, |_, _| ())?.swap_remove(0))
    }
}
