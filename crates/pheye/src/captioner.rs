//! A system that Pheye is compared with, its tokenizer and image preprocessing.

use std::path::Path;

use pheye_baselines::{Baseline, Config};
use pheye_image::{Preprocess, Tiles};
use pheye_model::{GenerationConfig, Hooks, Options, stack};
use pheye_ops::Cx;
use pheye_tensor::{Device, ParamTable};
use pheye_text::{Tokenizer, find_stop};

use crate::ask::{answer, text};
use crate::{Answer, Result};

/// A baseline with its tokenizer, ready to describe images.
#[derive(Debug)]
pub struct Captioner {
    /// The model.
    pub model: Baseline,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

impl Captioner {
    /// Loads the system in `folder` with its `tokenizer.json`. `progress` receives the number of bytes of weights loaded
    /// so far and their total.
    ///
    /// # Errors
    /// Returns an error if the folder has no such system, or if the weights or the tokenizer do not match its
    /// configuration.
    pub fn load(folder: &Path, options: Options, progress: impl FnMut(u64, u64)) -> Result<Captioner> {
        let config = Config::load(folder)?;
        let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json"), None)?;
        tokenizer.check_fits(config.text.vocab_size)?;
        Ok(Captioner { model: Baseline::load(folder, options, progress)?, tokenizer })
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
        Preprocess::new(self.model.config().vision.image_size, self.model.config().level)
    }

    /// Answers instructions about images. `instructions[i]` is about image `about[i]`, and `about` is ascending. The
    /// answers have the order of the instructions, with `num_return_sequences` answers to each. If `eos_token_id` is
    /// empty, the tokenizer's end token is used.
    ///
    /// # Errors
    /// Returns an error if an instruction is empty or too long for the context, if options conflict, or if an operation
    /// fails.
    pub fn ask(
        &self,
        cx: &Cx,
        images: &[&Tiles],
        instructions: &[&str],
        about: &[usize],
        how: &GenerationConfig,
    ) -> Result<Vec<Answer>> {
        let c = self.model.config();
        let mut how = how.clone();
        if how.eos_token_id.is_empty() {
            how.eos_token_id.push(self.tokenizer.end_token());
        }
        let prompt = |text: &&str| c.prompt.encode_prompt(&self.tokenizer, text, c.context());
        let prompts = instructions.iter().map(prompt).collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<_> = images.iter().map(|p| (&p.global[..], &p.local[..])).collect();
        let media = self.model.encode(cx, &stack(c.vision.image_size, &parts)?, images.len())?;
        let read = self.model.images(cx, media)?;
        let stops = &how.stop_strings;
        // An error of the decoder is ignored here, because it occurs again when the final text is decoded.
        let mut ends = |ids: &[u32]| {
            !stops.is_empty()
                && find_stop(stops, &text(&self.tokenizer, ids, &how).unwrap_or_default()).is_some()
        };
        let hooks = Hooks { on_token: None, ends: Some(&mut ends) };
        let answers = self.model.generate(cx, &read, &prompts, about, &how, hooks)?;
        answers.into_iter().map(|ids| answer(&self.tokenizer, ids, &how)).collect()
    }
}
