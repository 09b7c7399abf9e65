//! Evaluation during training. The trainer decides when; its caller measures, because generating answers
//! needs a tokenizer.

use pheye_model::Pheye;
use pheye_ops::Cx;

/// The result of an evaluation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// Share of the questions that were answered correctly.
    pub accuracy: f64,
    /// Number of questions.
    pub questions: usize,
    /// A few answered questions, for TensorBoard.
    pub shown: Vec<Answered>,
}

/// An answered question about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The question.
    pub question: String,
    /// The model's answer.
    pub answer: String,
    /// The correct answer.
    pub expected: String,
    /// The image as PNG.
    pub png: Vec<u8>,
    /// Width of the image in pixels.
    pub width: usize,
    /// Height of the image in pixels.
    pub height: usize,
}

/// Measures a model in training. The result must depend on the model alone.
pub type Evaluate = dyn FnMut(&Cx, &Pheye) -> Result<Evaluation, Box<dyn std::error::Error + Send + Sync>>;
