//! Accuracy on a question set: the share of greedy answers that equal the expected answer exactly.

use pheye_data::{Content, Manifest};
use pheye_image::{DecodeOptions, Rgb8};
use serde::Serialize;

use crate::{Error, Result};

/// Options of an accuracy measurement.
#[derive(Debug, Clone, Copy)]
pub struct AccuracyOptions {
    /// Images per forward pass, each with all of its questions.
    pub images: usize,
    /// Maximum number of questions; `None` means all.
    pub questions: Option<usize>,
}

impl Default for AccuracyOptions {
    fn default() -> AccuracyOptions {
        AccuracyOptions { images: 16, questions: None }
    }
}

/// The result of an accuracy measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accuracy {
    /// Correct answers divided by questions.
    pub accuracy: f64,
    /// Number of correct answers.
    pub right: usize,
    /// Number of questions asked.
    pub questions: usize,
}

/// A question with its answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Name of the image in the manifest's store.
    pub image: String,
    /// The question.
    pub question: String,
    /// The model's answer.
    pub answer: String,
    /// The correct answer.
    pub expected: String,
}

impl Judged {
    /// Whether the answer is correct.
    pub fn right(&self) -> bool {
        self.answer == self.expected
    }
}

/// A batch of questions about a few images.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The images.
    pub images: Vec<Rgb8>,
    /// The questions.
    pub questions: Vec<&'a str>,
    /// The image index of each question, ascending.
    pub about: Vec<usize>,
}

/// Asks every question of `manifest` about its image. `answer` answers a batch of questions;
/// `on(done, total)` reports the progress in questions.
///
/// # Errors
/// Returns an error if the manifest has no questions, an image cannot be read, or `answer` fails.
pub fn accuracy<E: From<Error>>(
    manifest: &Manifest,
    options: AccuracyOptions,
    mut answer: impl FnMut(&Asked) -> Result<Vec<String>, E>,
    mut on: impl FnMut(usize, usize),
) -> Result<(Accuracy, Vec<Judged>), E> {
    let items: Vec<_> = manifest.items.iter().filter(|i| i.has(Content::Questions)).collect();
    let all: usize = items.iter().map(|i| i.qa.len()).sum();
    let total = options.questions.map_or(all, |n| n.min(all));
    if total == 0 {
        return Err(Error::NoQuestions(manifest.path.display().to_string()).into());
    }
    let mut judged: Vec<Judged> = Vec::with_capacity(total);
    for items in items.chunks(options.images.max(1)) {
        let mut asked = Asked { images: Vec::new(), questions: Vec::new(), about: Vec::new() };
        let mut expected = Vec::new();
        for item in items {
            let left = total - judged.len() - expected.len();
            let (Some(file), true) = (&item.image, left > 0) else { continue };
            asked.images.push(manifest.store.image(file, &DecodeOptions::default()).map_err(Error::from)?);
            for (question, answer) in item.qa.iter().take(left) {
                asked.questions.push(question);
                asked.about.push(asked.images.len() - 1);
                expected.push((file, answer));
            }
        }
        if expected.is_empty() {
            break;
        }
        let answers = answer(&asked)?;
        judged.extend(expected.into_iter().zip(&asked.questions).zip(answers).map(
            |(((file, expected), question), answer)| Judged {
                image: file.clone(),
                question: (*question).to_owned(),
                answer,
                expected: expected.clone(),
            },
        ));
        on(judged.len(), total);
    }
    let right = judged.iter().filter(|j| j.right()).count();
    let questions = judged.len();
    Ok((Accuracy { accuracy: right as f64 / questions as f64, right, questions }, judged))
}
