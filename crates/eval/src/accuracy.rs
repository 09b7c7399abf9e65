//! The share of questions answered right: greedy answers, compared word for word.

use pheye_data::{Content, Manifest};
use pheye_image::{DecodeOptions, Rgb8};
use serde::Serialize;

use crate::{Error, Result};

/// How a question set is gone through.
#[derive(Debug, Clone, Copy)]
pub struct AccuracyOptions {
    /// Images of one forward pass, each with all of its questions.
    pub pictures: usize,
    /// At most so many questions; all when absent.
    pub questions: Option<usize>,
}

impl Default for AccuracyOptions {
    fn default() -> AccuracyOptions {
        AccuracyOptions { pictures: 16, questions: None }
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
    /// The image, as a name in the manifest's store.
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

/// Questions that are asked together, each about one of a few images.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The images.
    pub pictures: Vec<Rgb8>,
    /// The questions.
    pub questions: Vec<&'a str>,
    /// The image that each question is about, ascending.
    pub about: Vec<usize>,
}

/// Asks every question of `manifest` about its image: `answer` gives the answers to those asked together, and
/// `on(done, total)` is told how far it is.
///
/// # Errors
/// A manifest without questions, an image that cannot be read, and whatever `answer` says.
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
    for items in items.chunks(options.pictures.max(1)) {
        let mut asked = Asked { pictures: Vec::new(), questions: Vec::new(), about: Vec::new() };
        let mut expected = Vec::new();
        for item in items {
            let left = total - judged.len() - expected.len();
            let (Some(image), true) = (&item.image, left > 0) else { continue };
            asked.pictures.push(open(manifest, image)?);
            for (question, answer) in item.qa.iter().take(left) {
                asked.questions.push(question);
                asked.about.push(asked.pictures.len() - 1);
                expected.push((image, answer));
            }
        }
        if expected.is_empty() {
            break;
        }
        let answers = answer(&asked)?;
        judged.extend(expected.into_iter().zip(&asked.questions).zip(answers).map(
            |(((image, expected), question), answer)| Judged {
                picture: image.clone(),
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

fn open(manifest: &Manifest, image: &str) -> Result<Rgb8> {
    let store = &manifest.store;
    Ok(pheye_image::decode(&store.read(image)?, &store.name(image), &DecodeOptions::default())?)
}
