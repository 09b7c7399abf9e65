//! Makes a batch from any range of a mixture's order.

use std::sync::Mutex;

use pheye_files::{chain, quoted};
use pheye_image::{DecodeOptions, Preprocess, Rgb8, Tiles};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::image_cache::ImageCache;
use crate::{Augmentation, Content, Draw, Error, Item, Mixture, Result};

/// A text to tokenize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Example<'a> {
    /// A question (instruction) and its answer (output), to be inserted into the prompt template.
    Question(&'a str, &'a str),
    /// A caption or text, without a template.
    Text(&'a str),
}

/// A tokenized text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The token ids, including the end token.
    pub ids: Vec<u32>,
    /// Index in `ids` of the first target token. It must be less than the number of ids.
    pub loss_from: usize,
}

/// Tokenizes an example: the tokenizer and the prompt template as one function.
pub type Encode =
    dyn Fn(Example<'_>) -> Result<Encoded, Box<dyn std::error::Error + Send + Sync>> + Send + Sync;

/// What to do with an image or text that cannot be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBroken {
    /// Return an error that names it.
    #[default]
    Stop,
    /// Skip it and name it in [`Batch::skipped`].
    Skip,
}

/// How batches are made.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// Number of samples (images or texts) in a batch.
    pub batch: usize,
    /// Which texts are trained on.
    pub content: Content,
    /// Number of questions drawn for an image each time it is seen; `None` means all. Successive passes use
    /// different questions, until all have been used.
    pub questions: Option<usize>,
    /// Random augmentations of images.
    pub augmentation: Augmentation,
    /// Maximum number of tokens in a sequence.
    pub max_tokens: usize,
    /// Size of the cache of decoded images in bytes.
    pub cache_bytes: usize,
    /// How images are decoded.
    pub decode: DecodeOptions,
    /// What to do with images and texts that cannot be used.
    pub on_broken: OnBroken,
}

/// An image of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Name of its file.
    pub name: String,
    /// Its pixels.
    pub tiles: Tiles,
}

/// A tokenized text of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The image that it is about, an index into [`Batch::images`]; without images, the index of the
    /// sample.
    pub image: usize,
    /// The token ids.
    pub ids: Vec<u32>,
    /// Index in `ids` of the first target token.
    pub loss_from: usize,
}

/// The samples of one forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Position of its first sample in the order of the mixture.
    pub position: u64,
    /// Its images; empty with [`Content::Text`].
    pub images: Vec<Image>,
    /// Its texts; texts of the same image are consecutive.
    pub sequences: Vec<Sequence>,
    /// Why samples were skipped, one line each.
    pub skipped: Vec<String>,
}

/// Upper bound of the bytes of a token, used to reject a text with too many tokens without encoding it. The
/// longest token in the vocabulary of GPT-2, which Phi uses, has 128 bytes.
const TOKEN_BYTES: usize = 128;
/// Longest text that is encoded, in bytes: a tokenizer needs hundreds of times as much memory.
const TEXT_BYTES: usize = 1 << 20;

/// Makes the batches of a mixture.
pub struct Loader {
    mixture: Mixture,
    preprocess: Preprocess,
    encode: Box<Encode>,
    options: LoaderOptions,
    cache: Mutex<ImageCache>,
}

struct Texts {
    item: Item,
    texts: Vec<Encoded>,
    skipped: Vec<String>,
}

struct Sample {
    image: Option<Image>,
    texts: Vec<Encoded>,
    skipped: Vec<String>,
}

impl Loader {
    /// A loader of the batches of `mixture`.
    ///
    /// # Errors
    /// Returns [`Error::Zero`] if the batch size or the number of questions is 0.
    pub fn new(
        mixture: Mixture,
        preprocess: Preprocess,
        encode: Box<Encode>,
        options: LoaderOptions,
    ) -> Result<Loader> {
        for (option, value) in [("batch", options.batch), ("questions", options.questions.unwrap_or(1))] {
            if value == 0 {
                return Err(Error::Zero { option });
            }
        }
        let cache = Mutex::new(ImageCache::new(options.cache_bytes));
        Ok(Loader { mixture, preprocess, encode, options, cache })
    }

    /// The data and its order.
    pub fn mixture(&self) -> &Mixture {
        &self.mixture
    }

    /// Number of samples in a batch, by which the position advances.
    pub fn batch_len(&self) -> u64 {
        self.options.batch as u64
    }

    /// The batch whose first sample is at `position`. A batch may extend into the next epoch.
    ///
    /// # Errors
    /// Returns the error of the first sample that cannot be used. With [`OnBroken::Skip`] there are no
    /// errors, and the batch may have no sequences.
    pub fn batch(&self, position: u64) -> Result<Batch> {
        let positions = (0..self.batch_len()).into_par_iter().map(|i| position + i);
        let samples: Vec<Result<Sample>> = positions.map(|p| self.sample(&self.mixture.draw(p))).collect();
        let mut batch = Batch { position, images: Vec::new(), sequences: Vec::new(), skipped: Vec::new() };
        for (i, sample) in samples.into_iter().enumerate() {
            let sample = match (sample, self.options.on_broken) {
                (Ok(sample), _) => sample,
                (Err(error), OnBroken::Stop) => return Err(error),
                (Err(error), OnBroken::Skip) => {
                    batch.skipped.push(reason(&error));
                    continue;
                }
            };
            batch.skipped.extend(sample.skipped);
            if sample.texts.is_empty() {
                continue;
            }
            let image = if sample.image.is_some() { batch.images.len() } else { i };
            batch.images.extend(sample.image);
            let sequence = |Encoded { ids, loss_from }| Sequence { image, ids, loss_from };
            batch.sequences.extend(sample.texts.into_iter().map(sequence));
        }
        Ok(batch)
    }

    /// The texts of the sample at `position`, without its image; empty if it is skipped.
    ///
    /// # Errors
    /// Returns the error of the first text that cannot be used, unless [`OnBroken::Skip`] is set.
    pub fn texts(&self, position: u64) -> Result<Vec<Encoded>> {
        match (self.encode_texts(&self.mixture.draw(position)), self.options.on_broken) {
            (Ok(texts), _) => Ok(texts.texts),
            (Err(error), OnBroken::Stop) => Err(error),
            (Err(_), OnBroken::Skip) => Ok(Vec::new()),
        }
    }

    fn encode_texts(&self, draw: &Draw) -> Result<Texts> {
        let source = self.mixture.source(draw);
        let fault = |error| source.fault(draw.item, error);
        let item = self.mixture.drawn_item(draw, self.options.questions).map_err(fault)?;
        let (mut texts, mut skipped) = (Vec::new(), Vec::new());
        for text in item.texts(self.options.content) {
            match (self.encode(text).map_err(fault), self.options.on_broken) {
                (Ok(encoded), _) => texts.push(encoded),
                (Err(error), OnBroken::Stop) => return Err(error),
                (Err(error), OnBroken::Skip) => skipped.push(reason(&error)),
            }
        }
        Ok(Texts { item, texts, skipped })
    }

    fn sample(&self, draw: &Draw) -> Result<Sample> {
        let source = self.mixture.source(draw);
        let Texts { item, texts, skipped } = self.encode_texts(draw)?;
        let image = match &item.image {
            // Without a text, the image is not needed.
            Some(file) if self.options.content != Content::Text && !texts.is_empty() => {
                let augment = self.options.augmentation.draw(self.mixture.seed(), draw.id, draw.pass);
                let image = self.image(draw, file).map_err(|error| source.fault(draw.item, error))?;
                let name = source.name(draw.item, &item);
                Some(Image { name, tiles: self.preprocess.augmented(&image, &augment) })
            }
            _ => None,
        };
        Ok(Sample { image, texts, skipped })
    }

    /// Bytes of the decoded image of sample `position`; 0 for a sample without one.
    ///
    /// # Errors
    /// Returns an error if the item or its image cannot be read.
    pub fn image_bytes(&self, position: u64) -> Result<usize> {
        let draw = self.mixture.draw(position);
        match &self.mixture.item(&draw)?.image {
            Some(file) if self.options.content != Content::Text => Ok(self.image(&draw, file)?.pixels.len()),
            _ => Ok(0),
        }
    }

    fn encode(&self, text: Example<'_>) -> Result<Encoded> {
        let encoded = encoded(&self.encode, text, self.options.max_tokens)?;
        if encoded.ids.len() > self.options.max_tokens {
            return Err(Error::TooLong { tokens: encoded.ids.len(), limit: self.options.max_tokens });
        }
        Ok(encoded)
    }

    fn image(&self, draw: &Draw, file: &str) -> Result<Rgb8> {
        // The lock is held only to copy pixels, never while decoding.
        let cache = || self.cache.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(image) = cache().get(draw.id) {
            return Ok(image);
        }
        let image = self.mixture.source(draw).store().image(file, &self.options.decode)?;
        cache().insert(draw.id, &image);
        Ok(image)
    }
}

/// The tokens of `text`, unless it has more bytes than `tokens` tokens can represent, or no target.
pub(crate) fn encoded(encode: &Encode, text: Example<'_>, tokens: usize) -> Result<Encoded> {
    let limit = tokens.saturating_mul(TOKEN_BYTES).min(TEXT_BYTES);
    let bytes = match text {
        Example::Question(question, answer) => question.len().saturating_add(answer.len()),
        Example::Text(text) => text.len(),
    };
    if bytes > limit {
        return Err(Error::TooManyBytes { bytes, tokens, limit });
    }
    let encoded = encode(text).map_err(|source| Error::Encode { source })?;
    if encoded.loss_from >= encoded.ids.len() {
        return Err(Error::EmptyText);
    }
    Ok(encoded)
}

impl Item {
    /// The texts that are trained on for `content`.
    pub(crate) fn texts(&self, content: Content) -> Vec<Example<'_>> {
        let texts = [&self.text, &self.caption].into_iter().flatten().map(|t| Example::Text(t));
        let questions = self.qa.iter().map(|(question, answer)| Example::Question(question, answer));
        match content {
            Content::Questions => questions.collect(),
            Content::Captions => self.caption.iter().map(|c| Example::Text(c)).collect(),
            Content::Text => texts.chain(questions).collect(),
        }
    }
}

/// The reason for skipping a sample, on one line.
fn reason(error: &Error) -> String {
    quoted(&chain(error))
}
