//! Evaluates the model of a training run on the test questions of its config: the function that the trainer
//! takes.

use pheye_data::Manifest;
use pheye_eval::{AccuracyOptions, Asked, Judged, accuracy};
use pheye_image::{DecodeOptions, Preprocess, Rgb8, shrink};
use pheye_model::{GenerationConfig, Hooks, Pheye, stack};
use pheye_ops::Cx;
use pheye_text::Tokenizer;
use pheye_train::{Answered, Config, Evaluate, Evaluation};

use crate::Result;

/// Maximum length of an answer to a test question, in tokens.
pub const LONGEST_ANSWER: usize = 16;

/// Longest side of an image in TensorBoard, in pixels.
const SIDE: usize = 224;

/// The function that evaluates the model in training on `eval.questions` questions of each set of `data.test`,
/// with `eval.show` answered images. `None` if `eval.every` is 0.
///
/// # Errors
/// Returns an error if the tokenizer or a question set cannot be read.
pub fn evaluator(config: &Config) -> Result<Option<Box<Evaluate>>> {
    if config.eval.every == 0 {
        return Ok(None);
    }
    let tokenizer = Tokenizer::from_file(config.tokenizer()?, None)?;
    let manifests = config.data.test.iter().map(|path| Manifest::open(config.resolve(path)));
    let manifests = manifests.collect::<Result<Vec<_>, _>>()?;
    let images = config.eval.batch.unwrap_or(config.train.batch);
    let options = AccuracyOptions { images, questions: config.eval.questions };
    let show = config.eval.show;
    Ok(Some(Box::new(move |cx, model| Ok(evaluate(cx, model, &tokenizer, &manifests, options, show)?))))
}

fn evaluate(
    cx: &Cx,
    model: &Pheye,
    tokenizer: &Tokenizer,
    manifests: &[Manifest],
    options: AccuracyOptions,
    show: usize,
) -> Result<Evaluation> {
    let (mut right, mut found) = (0, Evaluation::default());
    for (i, manifest) in manifests.iter().enumerate() {
        let answer = |asked: &Asked| answers(cx, model, tokenizer, asked);
        let (accuracy, judged) = accuracy(manifest, options, answer, |_, _| {})?;
        right += accuracy.right;
        found.questions += accuracy.questions;
        if i == 0 {
            let shown = spread(&judged, show).map(|judged| answered(manifest, judged));
            found.shown = shown.collect::<Result<_>>()?;
        }
    }
    found.accuracy = right as f64 / found.questions as f64;
    Ok(found)
}

/// The greedy answers to questions, as [`Assistant::ask`](crate::Assistant::ask) gives them.
fn answers(cx: &Cx, model: &Pheye, tokenizer: &Tokenizer, asked: &Asked) -> Result<Vec<String>> {
    let c = model.config();
    let preprocess = Preprocess::new(c.vision.image_size, c.connector.level);
    let tiles: Vec<_> = asked.images.iter().map(|image| preprocess.pixels(image)).collect();
    let tiles: Vec<_> = tiles.iter().map(|tiles| (&tiles.global[..], &tiles.local[..])).collect();
    let media = model.encode(cx, &stack(c.vision.image_size, &tiles)?, tiles.len())?;
    let kvs = model.cross_kv(cx, &media)?;
    let context = c.text.max_position_embeddings;
    let prompt = |question: &&str| c.prompt.encode_prompt(tokenizer, question, context);
    let prompts = asked.questions.iter().map(prompt).collect::<Result<Vec<_>, _>>()?;
    let end = tokenizer.end_token();
    let mut how = GenerationConfig::greedy(LONGEST_ANSWER);
    how.eos_token_id.push(end);
    let ids = model.generate(cx, &kvs, &prompts, &asked.about, &how, Hooks::default())?;
    let text = |mut ids: Vec<u32>| -> Result<String> {
        ids.retain(|id| *id != end);
        Ok(tokenizer.decode(&ids)?.trim().to_owned())
    };
    ids.into_iter().map(text).collect()
}

/// Up to `count` of `answers`, evenly spaced.
pub fn spread<T>(answers: &[T], count: usize) -> impl Iterator<Item = &T> {
    // An odd step, so that the samples vary in kind if the questions of an image have a fixed order.
    let step = (answers.len() / count.max(1)).max(1) | 1;
    answers.iter().step_by(step).take(count)
}

fn answered(manifest: &Manifest, judged: &Judged) -> Result<Answered> {
    let image = shrink(manifest.store.image(&judged.image, &DecodeOptions::default())?, SIDE);
    let Judged { question, answer, expected, .. } = judged.clone();
    Ok(Answered { question, answer, expected, png: png(&image)?, width: image.width, height: image.height })
}

/// The image as a PNG file.
///
/// # Errors
/// Returns an error if the image has no pixels.
pub fn png(image: &Rgb8) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width as u32, image.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&image.pixels))?;
    Ok(bytes)
}
