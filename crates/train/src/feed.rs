//! Builds the training data and its loader from the config.

use std::path::Path;
use std::sync::Arc;

use pheye_data::{Augmentation, Content, Encode, Loader, LoaderOptions, Mixture, Source, index_folder};
use pheye_image::{DecodeOptions, Preprocess};
use rayon::prelude::*;

use crate::{Config, Result, Shape, Task};

/// Which texts of the data `config` trains on.
pub fn content(config: &Config) -> Content {
    config.data.content.unwrap_or(match config.task {
        Task::Pheye | Task::Baseline => Content::Questions,
        Task::Contrastive => Content::Captions,
        Task::NextToken => Content::Text,
    })
}

/// The training data of `config`: the manifests, then the sources. Published files without a stored index are
/// read.
///
/// # Errors
/// Returns [`crate::Error::Data`] if a file cannot be read, has another form, or has nothing to train on.
pub fn mixture(config: &Config) -> Result<Mixture> {
    let data = &config.data;
    let indices = data.index.as_ref().map(|folder| config.resolve(folder)).or_else(index_folder);
    let indices: Option<&Path> = indices.as_deref();
    let weight = |i: usize| data.weights.get(i).copied().unwrap_or(1.0);
    let manifests = data.train.par_iter().enumerate().map(|(i, path)| {
        Source::lines(config.resolve(path), indices).map(|source| source.weighted(weight(i)))
    });
    let published =
        data.source.par_iter().map(|source| Source::open(&source.resolved(&config.base), indices));
    // The error of the first, whichever is read first.
    let sources: Vec<Result<Source, _>> = manifests.chain(published).collect();
    let sources = sources.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(Mixture::new(sources, None, content(config), config.train.seed)?)
}

/// The loader of the training data of `config`, for a network of this shape.
pub(crate) fn loader(config: &Config, shape: &Shape, encode: Box<Encode>) -> Result<Arc<Loader>> {
    let data = &config.data;
    let preprocess = Preprocess::new(shape.image_size, shape.level);
    let options = LoaderOptions {
        batch: config.train.batch,
        content: content(config),
        questions: data.questions,
        augmentation: Augmentation::parse(&data.augment)?,
        max_tokens: max_tokens(config, shape),
        cache_bytes: data.cache_mib << 20,
        decode: DecodeOptions::default(),
        on_broken: data.on_broken,
    };
    Ok(Arc::new(Loader::new(mixture(config)?, preprocess, encode, options)?))
}

/// The maximum number of tokens of a sequence, for a network of this shape.
pub fn max_tokens(config: &Config, shape: &Shape) -> usize {
    config.data.max_tokens.unwrap_or(shape.context).min(shape.context)
}
