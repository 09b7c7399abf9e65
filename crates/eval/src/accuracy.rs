//! The share of questions answered right: greedy answers, compared word for word.

use pheye_data::{Content, Manifest};
use pheye_image::DecodeOptions;
use pheye_model::Assistant;
use pheye_ops::Cx;
use serde::Serialize;

use crate::{Error, Result};

/// How a question set is gone through.
#[derive(Debug, Clone, Copy)]
pub struct AccuracyOptions {
    /// Pictures of one forward pass, each with all of its questions.
    pub pictures: usize,
    /// At most so many questions; all when absent.
    pub questions: Option<usize>,
    /// Longest answer in tokens.
    pub max_new_tokens: usize,
}

impl Default for AccuracyOptions {
    fn default() -> AccuracyOptions {
        AccuracyOptions { pictures: 16, questions: None, max_new_tokens: 16 }
    }
}

/// How many questions were answered right.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accuracy {
    /// Right answers over questions.
    pub accuracy: f64,
    /// Right answers.
    pub right: usize,
    /// Questions asked.
    pub questions: usize,
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// The picture, as a name in the manifest's store.
    pub picture: String,
    /// The question.
    pub question: String,
    /// What the model said.
    pub answer: String,
    /// What is right.
    pub expected: String,
}

impl Judged {
    /// Whether the answer is right.
    pub fn right(&self) -> bool {
        self.answer == self.expected
    }
}

/// Asks every question of `manifest` about its picture; `on(done, total)` is told how far it is.
///
/// # Errors
/// A manifest without questions, a picture that cannot be read, a question too long for the context.
pub fn accuracy(
    cx: &Cx,
    assistant: &Assistant,
    manifest: &Manifest,
    options: AccuracyOptions,
    mut on: impl FnMut(usize, usize),
) -> Result<(Accuracy, Vec<Judged>)> {
    let items: Vec<_> = manifest.items.iter().filter(|i| i.has(Content::Questions)).collect();
    let all: usize = items.iter().map(|i| i.qa.len()).sum();
    let total = options.questions.map_or(all, |n| n.min(all));
    if total == 0 {
        return Err(Error::NoQuestions(manifest.path.display().to_string()));
    }
    let preprocess = assistant.preprocess();
    let mut judged: Vec<Judged> = Vec::with_capacity(total);
    for items in items.chunks(options.pictures.max(1)) {
        let (mut tiles, mut asked) = (Vec::new(), Vec::new());
        let mut left = total - judged.len();
        for item in items.iter().take_while(|_| judged.len() < total) {
            let Some(image) = &item.image else { continue };
            let store = &manifest.store;
            let bytes = store.read(image)?;
            let picture = pheye_image::decode(&bytes, &store.name(image), &DecodeOptions::default())?;
            tiles.push(preprocess.pixels(&picture));
            asked.extend(item.qa.iter().take(left).map(|(q, a)| (tiles.len() - 1, image, q.as_str(), a)));
            left -= item.qa.len().min(left);
        }
        if asked.is_empty() {
            break;
        }
        let tiles: Vec<_> = tiles.iter().collect();
        let questions: Vec<&str> = asked.iter().map(|(_, _, q, _)| *q).collect();
        let about: Vec<usize> = asked.iter().map(|(p, ..)| *p).collect();
        let answers = assistant.ask(cx, &tiles, &questions, &about, options.max_new_tokens, |_, _| ())?;
        judged.extend(asked.into_iter().zip(answers).map(|((_, image, question, expected), answer)| Judged {
            picture: image.clone(),
            question: question.to_owned(),
            answer: answer.text,
            expected: expected.clone(),
        }));
        on(judged.len(), total);
    }
    let right = judged.iter().filter(|j| j.right()).count();
    let questions = judged.len();
    Ok((Accuracy { accuracy: right as f64 / questions as f64, right, questions }, judged))
}
