//! Answers in a file that grows: an evaluation that was stopped goes on where it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pheye_data::Store;
use pheye_image::{DecodeOptions, Rgb8};
use pheye_metrics::read::Id;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Item;
use crate::grown::{self, Grown, complete_lines};
use crate::{Error, Result};

/// An answer of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The id of the question, or of the image if it was to be described.
    pub id: Id,
    /// The image.
    pub image: String,
    /// Its width and height in pixels.
    pub image_size: [usize; 2],
    /// What was asked, without the model's template.
    pub instruction: String,
    /// The answer.
    pub answer: String,
    /// The log-probability of its tokens, with the end token, in nats.
    pub log_prob: f64,
    /// The number of its tokens.
    pub tokens: usize,
    /// For each cross-attention block, the share of the attention weights on the tokens of the global image, averaged
    /// over heads and tokens of the answer; empty unless it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub global_attention: Vec<f32>,
}

/// What a model answers, for a [`Prediction`].
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// The text.
    pub text: String,
    /// The log-probability of its tokens in nats.
    pub log_prob: f64,
    /// The number of its tokens.
    pub tokens: usize,
    /// The share of attention on the global image, for each cross-attention block.
    pub global_attention: Vec<f32>,
}

/// A batch of instructions about a few images.
#[derive(Debug)]
pub struct Asking {
    /// The images.
    pub images: Vec<Rgb8>,
    /// The instructions.
    pub instructions: Vec<String>,
    /// The image index of each instruction, ascending.
    pub about: Vec<usize>,
    /// Longest answer in tokens.
    pub new_tokens: usize,
}

/// What is asked, and how.
pub struct Ask<'a> {
    /// The questions.
    pub items: &'a [Item],
    /// Where their images are.
    pub store: &'a Store,
    /// Images per batch.
    pub images: usize,
    /// Longest answer in tokens.
    pub new_tokens: usize,
    /// The instruction for a question, such as [`Benchmark::instruction`](super::Benchmark::instruction).
    pub instruction: &'a dyn Fn(&str) -> String,
}

/// The answers of an evaluation, in the folder that keeps them.
#[derive(Debug)]
pub struct Predictions {
    folder: PathBuf,
    /// The answers so far, a prefix of the questions.
    pub done: Vec<Prediction>,
}

/// The files of the folder: the answers, how long each batch took, and what the answers depend on.
const ANSWERS: &str = "predictions.jsonl";
const TIMES: &str = "times.jsonl";
const SETTINGS: &str = "settings.json";
impl Predictions {
    /// Opens the folder of an evaluation of `items` with `settings`: everything that the answers depend on. A new
    /// folder is created; one of an evaluation that was stopped is taken up, after the last complete batch of `images`
    /// images.
    ///
    /// # Errors
    /// [`Error::Settings`] when the folder belongs to an evaluation with other settings, [`Error::Predictions`] when
    /// its answers are not to these questions, [`Error::Io`] when it cannot be read or written.
    pub fn open(
        folder: &Path,
        settings: &Map<String, Value>,
        items: &[Item],
        images: usize,
    ) -> Result<Predictions> {
        fs::create_dir_all(folder).map_err(io(folder))?;
        grown::settings(&folder.join(SETTINGS), settings)?;
        let mut predictions = Predictions { folder: folder.to_owned(), done: Vec::new() };
        predictions.take_up(items, images)?;
        Ok(predictions)
    }

    /// Reads the answers, and removes those after the last complete batch.
    fn take_up(&mut self, items: &[Item], images: usize) -> Result<()> {
        let path = self.folder.join(ANSWERS);
        let lines = complete_lines(&path)?;
        let fault = |line: usize, why: String| Error::Predictions { path: path.clone(), line, why };
        let mut done = Vec::new();
        for (i, line) in lines.iter().enumerate() {
            let row: Prediction = serde_json::from_slice(line).map_err(|e| fault(i + 1, e.to_string()))?;
            match items.get(i) {
                Some(item) if item.id == row.id => done.push(row),
                Some(item) => {
                    let why = format!("an answer to `{}`, where `{}` is asked", row.id, item.id);
                    return Err(fault(i + 1, why));
                }
                None => return Err(fault(i + 1, format!("more answers than the {} questions", items.len()))),
            }
        }
        let ends = batches(items, images).into_iter().map(|batch| batch.end);
        let keep = ends.take_while(|end| *end <= done.len()).last().unwrap_or(0);
        done.truncate(keep);
        Grown::after(&path, &lines[..keep])?;
        self.done = done;
        Ok(())
    }

    /// Asks the questions that have no answer yet. `answer` answers a batch; `on(done, total)` reports the progress in
    /// questions.
    ///
    /// # Errors
    /// When an image cannot be read, `answer` fails, or the answers cannot be written; what is answered is kept.
    pub fn run<E: From<Error>>(
        &mut self,
        Ask { items, store, images, new_tokens, instruction }: Ask,
        mut answer: impl FnMut(&Asking) -> Result<Vec<Answered>, E>,
        mut on: impl FnMut(usize, usize),
    ) -> Result<(), E> {
        let mut answers = Grown::open(&self.folder.join(ANSWERS))?;
        let mut times = Grown::open(&self.folder.join(TIMES))?;
        let total = items.len();
        let first = self.done.len();
        for batch in batches(items, images).into_iter().filter(|batch| batch.start >= first) {
            let began = Instant::now();
            let (items, rows) = (&items[batch.clone()], &mut self.done);
            let asking = ask(items, store, new_tokens, instruction)?;
            let answered = answer(&asking)?;
            let (first, mut text) = (rows.len(), String::new());
            for ((item, instruction), (about, answered)) in
                items.iter().zip(&asking.instructions).zip(asking.about.iter().zip(answered))
            {
                let Rgb8 { width, height, .. } = asking.images[*about];
                let Answered { text: answer, log_prob, tokens, global_attention } = answered;
                let (id, image, instruction) = (item.id.clone(), item.image.clone(), instruction.clone());
                let image_size = [width, height];
                rows.push(Prediction {
                    id,
                    image,
                    image_size,
                    instruction,
                    answer,
                    log_prob,
                    tokens,
                    global_attention,
                });
            }
            for row in &rows[first..] {
                // Strings and finite numbers always serialize.
                text += &serde_json::to_string(row).unwrap_or_default();
                text.push('\n');
            }
            answers.add(&text)?;
            let seconds = began.elapsed().as_secs_f64();
            let (questions, images) = (rows.len() - first, asking.images.len());
            times.add(&format!(
                "{}\n",
                serde_json::json!({"images": images, "questions": questions, "seconds": seconds})
            ))?;
            on(batch.end, total);
        }
        Ok(())
    }
}

/// The batches of `items`: ranges with `images` images each.
fn batches(items: &[Item], images: usize) -> Vec<std::ops::Range<usize>> {
    let mut batches: Vec<std::ops::Range<usize>> = Vec::new();
    let (mut start, mut seen) = (0, 0);
    for (i, item) in items.iter().enumerate() {
        if i == 0 || items[i - 1].image != item.image {
            seen += 1;
            if seen > images.max(1) {
                batches.push(start..i);
                (start, seen) = (i, 1);
            }
        }
    }
    if start < items.len() {
        batches.push(start..items.len());
    }
    batches
}

/// The batch of `items`.
fn ask(
    items: &[Item],
    store: &Store,
    new_tokens: usize,
    instruction: &dyn Fn(&str) -> String,
) -> Result<Asking> {
    let mut asking = Asking { images: Vec::new(), instructions: Vec::new(), about: Vec::new(), new_tokens };
    for (i, item) in items.iter().enumerate() {
        if i == 0 || items[i - 1].image != item.image {
            asking.images.push(store.image(&item.image, &DecodeOptions::default())?);
        }
        asking.about.push(asking.images.len() - 1);
        asking.instructions.push(instruction(&item.question));
    }
    Ok(asking)
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    |source| Error::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_whole_images() {
        let item = |image: &str| Item {
            id: image.into(),
            image: image.into(),
            question: String::new(),
            expected: None,
            area: None,
        };
        let items: Vec<Item> = "aabbbcdd".chars().map(|c| item(&c.to_string())).collect();
        assert_eq!(batches(&items, 2), [0..5, 5..8]);
        assert_eq!(batches(&items, 1), [0..2, 2..5, 5..6, 6..8]);
        assert_eq!(batches(&items, 9), std::slice::from_ref(&(0..8)));
        assert!(batches(&[], 2).is_empty());
    }
}
